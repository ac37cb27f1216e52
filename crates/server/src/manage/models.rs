//! `GET /v1/models` and `GET /v1/models/{model}`: the base, the loaded adapters and the aliases as models.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::{ApiError, ErrorBody};

/// All names that `model` takes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<ModelCard>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelCard {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    /// When the server started, seconds since 1970.
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
    /// What it stands for: itself, or an alias' model.
    pub(crate) root: String,
    /// The base under an adapter.
    pub(crate) parent: Option<String>,
    /// Tokens of prompt and answer together.
    pub(crate) max_model_len: usize,
}

impl App {
    fn cards(&self) -> Vec<ModelCard> {
        let base = &self.options.model;
        let card = |id: &str, root: &str, parent: Option<&str>| ModelCard {
            id: id.to_owned(),
            object: "model",
            created: self.started,
            owned_by: "edgethink",
            root: root.to_owned(),
            parent: parent.map(str::to_owned),
            max_model_len: self.facts.context_tokens,
        };
        let mut cards = vec![card(base, base, None)];
        for adapter in self.adapters() {
            cards.push(card(&adapter.name, &adapter.name, Some(base)));
        }
        for (alias, meant) in &self.options.aliases {
            let parent = (meant != base).then_some(base.as_str());
            cards.push(card(alias, meant, parent));
        }
        cards
    }
}

/// Lists the models.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "OpenAI",
    responses((status = 200, description = "All of them", body = ModelList))
)]
pub(crate) async fn list(State(app): State<App>) -> Json<ModelList> {
    Json(ModelList {
        object: "list",
        data: app.cards(),
    })
}

/// Shows one model.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "OpenAI",
    params(("model" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The model", body = ModelCard),
        (status = 404, description = "No such model", body = ErrorBody),
    )
)]
pub(crate) async fn show(
    State(app): State<App>,
    Path(model): Path<String>,
) -> Result<Json<ModelCard>, ApiError> {
    app.resolve(Some(&model))?;
    let card = app.cards().into_iter().find(|card| card.id == model);
    let gone = || ApiError::not_found("model_not_found", format!("there is no model {model:?}"));
    card.map(Json).ok_or_else(gone)
}
