//! Flags of `serve`. Every one is also a key of its config file.

use std::path::PathBuf;

use clap::Args;

use super::{EngineArgs, ModelArgs, SamplingArgs, ThinkingArgs, positive};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  edgethink serve                                 the pocket model at http://127.0.0.1:8080
  edgethink serve --model model.edgethink --streams 16 --queue 64
  edgethink serve --host 0.0.0.0 --api-key-file keys.txt
  edgethink serve --config serve.toml             any flag as a key: port = 8080, think = \"auto\"
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is 17 plus 25?\"}]}'

A flag wins over its environment variable, and that over the config file. The flags of thinking and
sampling are what a request leaves open. SIGTERM or Ctrl-C ends the server when everything that was
asked is answered; a second one ends it at once.")]
pub(crate) struct ServeArgs {
    /// Settings in TOML: any flag of this command as a key
    #[arg(long, value_name = "FILE", env = "EDGETHINK_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1",
        env = "EDGETHINK_HOST"
    )]
    pub(crate) host: String,
    /// Port; 0 takes a free one
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 8080,
        env = "EDGETHINK_PORT"
    )]
    pub(crate) port: u16,
    /// The model's name in the API [default: the name of its file or directory]
    #[arg(long, value_name = "NAME", env = "EDGETHINK_MODEL_NAME")]
    pub(crate) model_name: Option<String>,
    /// The adapter's name in the API [default: the name of its file or directory]
    #[arg(long, value_name = "NAME", env = "EDGETHINK_ADAPTER_NAME")]
    pub(crate) adapter_name: Option<String>,
    /// A further name of the model or an adapter, as NAME=MODEL; may be given several times
    #[arg(long, value_name = "NAME=MODEL", value_parser = alias, env = "EDGETHINK_ALIAS", value_delimiter = ',')]
    pub(crate) alias: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) thinking: ThinkingArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Bounds on requests.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Streams that run at the same time, of all requests together
    #[arg(long, value_name = "N", default_value_t = 32, env = "EDGETHINK_STREAMS", value_parser = positive)]
    pub(crate) streams: usize,
    /// Requests that may wait; further ones get 503 at once
    #[arg(long, value_name = "N", default_value_t = 128, env = "EDGETHINK_QUEUE", value_parser = positive)]
    pub(crate) queue: usize,
    /// Most choices of one request
    #[arg(long, value_name = "N", default_value_t = 64, env = "EDGETHINK_MAX_N",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) max_n: u16,
    /// From a request's arrival to the end of its answer
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 600,
        env = "EDGETHINK_DEADLINE"
    )]
    pub(crate) deadline: u64,
    /// How long running requests may go on after SIGTERM
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 600,
        env = "EDGETHINK_DRAIN"
    )]
    pub(crate) drain: u64,
    /// Bytes of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, env = "EDGETHINK_BODY_LIMIT", value_parser = positive)]
    pub(crate) body_limit: usize,
}

/// Who may ask, and what from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArgs {
    /// A request must have one of the keys in this file, one per line
    #[arg(long, value_name = "FILE", env = "EDGETHINK_API_KEY_FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Adapters may be loaded at run time from below this directory [default: none may]
    #[arg(long, value_name = "DIR", env = "EDGETHINK_ADAPTER_ROOT")]
    pub(crate) adapter_root: Option<PathBuf>,
    /// Pages of this origin, with its scheme, may use the API, or * for all; may be given several times
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "EDGETHINK_CORS",
        value_delimiter = ','
    )]
    pub(crate) cors: Vec<String>,
    /// A further name of this machine, for browsers that come without a key; may be given several times
    #[arg(
        long,
        value_name = "NAME",
        env = "EDGETHINK_ALLOW_HOST",
        value_delimiter = ','
    )]
    pub(crate) allow_host: Vec<String>,
}

fn alias(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, model)) if !name.is_empty() && !model.is_empty() => {
            Ok((name.to_owned(), model.to_owned()))
        }
        _ => Err(format!("{text:?} is not of the form NAME=MODEL")),
    }
}
