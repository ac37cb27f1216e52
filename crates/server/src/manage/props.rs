//! `GET /props`: what the server runs, for pages and scripts.

use axum::Json;
use axum::extract::State;
use edgethink_reason::Think;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;

/// The model, its adapters and heads, the limits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Props {
    /// The program's version.
    pub(crate) version: &'static str,
    pub(crate) model: ModelProps,
    pub(crate) adapters: Vec<AdapterProps>,
    /// `null` without a switcher.
    pub(crate) switcher: Option<SwitcherProps>,
    /// Whether answers can be scored by a trained head.
    pub(crate) verifier: bool,
    /// What happens if a request does not say: `auto`, `on` or `off`.
    pub(crate) default_think: &'static str,
    pub(crate) limits: LimitProps,
    pub(crate) kv: KvProps,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelProps {
    pub(crate) id: String,
    /// The architecture.
    pub(crate) name: &'static str,
    pub(crate) parameters: usize,
    pub(crate) context_tokens: usize,
    /// `stored`, `q8` or `q4`.
    pub(crate) weights: &'static str,
    /// `stored` or `q8`.
    pub(crate) adapter_weights: &'static str,
    /// Instruction set of the kernels.
    pub(crate) isa: String,
    pub(crate) threads: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdapterProps {
    pub(crate) name: String,
    /// It shares the prompt's KV with the base.
    pub(crate) masked: bool,
    /// Budgets that it was trained with, tokens.
    pub(crate) budgets: Vec<usize>,
    pub(crate) rank: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SwitcherProps {
    /// The least score that gets a thought.
    pub(crate) threshold: f32,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitProps {
    pub(crate) max_n: usize,
    /// Tokens of one response; `null` for what fits in the context.
    pub(crate) max_tokens: Option<usize>,
    /// Requests that may wait.
    pub(crate) queue: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KvProps {
    pub(crate) blocks_total: usize,
    pub(crate) block_tokens: usize,
    pub(crate) block_bytes: usize,
}

/// Says what the server runs.
#[utoipa::path(
    get,
    path = "/props",
    tag = "Management",
    responses((status = 200, description = "What it runs", body = Props))
)]
pub(crate) async fn show(State(app): State<App>) -> Json<Props> {
    let facts = &app.facts;
    let limits = &app.options.limits;
    let adapters = app.adapters().into_iter().map(|adapter| AdapterProps {
        name: adapter.name,
        masked: adapter.masked,
        budgets: adapter.format.budgets,
        rank: adapter.rank,
    });
    Json(Props {
        version: env!("CARGO_PKG_VERSION"),
        model: ModelProps {
            id: app.options.model.clone(),
            name: app.model.config.family.architecture(),
            parameters: facts.parameters,
            context_tokens: facts.context_tokens,
            weights: facts.weights,
            adapter_weights: facts.adapter_weights,
            isa: facts.isa.clone(),
            threads: facts.threads,
        },
        adapters: adapters.collect(),
        switcher: facts.threshold.map(|threshold| SwitcherProps { threshold }),
        verifier: facts.verifier,
        default_think: match app.defaults.think {
            Think::Auto => "auto",
            Think::On => "on",
            Think::Off => "off",
        },
        limits: LimitProps {
            max_n: limits.max_n,
            max_tokens: limits.max_tokens,
            queue: limits.queue,
        },
        kv: KvProps {
            blocks_total: facts.blocks_total,
            block_tokens: facts.block_tokens,
            block_bytes: facts.block_bytes,
        },
    })
}
