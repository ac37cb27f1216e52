//! `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`: adapters that come and go while the server runs, as in vLLM.
//!
//! Off unless the server was given a root. A path is taken below it; after links are followed it must still be below it.

use std::path::{Component, Path, PathBuf};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use edgethink_model::Adapter;
use edgethink_reason::ThoughtFormat;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::{App, LoadedAdapter};
use crate::error::{ApiError, ErrorBody, told};
use crate::extract::Body;
use crate::worker::handle::Command;

/// Adapters at the same time.
const MOST: usize = 64;
/// Bytes of a name.
const LONGEST_NAME: usize = 128;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadRequest {
    /// The name that requests give as `model`.
    pub(crate) lora_name: String,
    /// A PEFT directory or a GGUF file below the server's root.
    pub(crate) lora_path: String,
    /// Takes the place of an adapter that has the name already; what runs goes on with the old one.
    pub(crate) load_inplace: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnloadRequest {
    pub(crate) lora_name: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdapterDone {
    pub(crate) name: String,
    /// `loaded` or `unloaded`.
    pub(crate) status: &'static str,
}

fn root(app: &App) -> Result<&Path, ApiError> {
    app.options.adapter_root.as_deref().ok_or_else(|| {
        ApiError::with_code(
            StatusCode::FORBIDDEN,
            "adapters_are_fixed",
            "this server loads no adapters at run time; start it with --adapter-root",
        )
    })
}

/// The file or directory that `path` means below `root`.
fn below(root: &Path, path: &str) -> Result<PathBuf, ApiError> {
    let refused = |why: &str| ApiError::bad("lora_path", format!("{path:?} {why}"));
    let relative = Path::new(path);
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !relative.components().all(inside) {
        return Err(refused("is no path below the adapter root"));
    }
    // The same words whether it is not there or elsewhere: nothing is told of files outside.
    let none = || refused("is no adapter below the adapter root");
    let real = root.join(relative).canonicalize().map_err(|_| none())?;
    if !real.starts_with(root) {
        return Err(none());
    }
    Ok(real)
}

/// Loads an adapter.
#[utoipa::path(
    post,
    path = "/v1/load_lora_adapter",
    tag = "Management",
    request_body = LoadRequest,
    responses(
        (status = 200, description = "It is a model now", body = AdapterDone),
        (status = 400, description = "A field is wrong, and is named", body = ErrorBody),
        (status = 403, description = "The server has no adapter root", body = ErrorBody),
        (status = 409, description = "The name is taken", body = ErrorBody),
    )
)]
pub(crate) async fn load(
    State(app): State<App>,
    Body(request): Body<LoadRequest>,
) -> Result<Json<AdapterDone>, ApiError> {
    let root = root(&app)?;
    let name = request.lora_name;
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(ApiError::bad(
            "lora_name",
            "a name has 1 to 128 printed characters",
        ));
    }
    let replace = request.load_inplace.unwrap_or(false);
    let known = app.adapters().into_iter().find(|it| it.name == name);
    let mine = known.as_ref().is_some_and(|it| !it.own);
    if app.resolve(Some(&name)).is_ok() && !(replace && mine) {
        let message = format!("{name:?} is a model already; unload it, or take another name");
        return Err(conflict(message));
    }
    if known.is_none() && app.adapters().len() >= MOST {
        return Err(conflict(format!("{MOST} adapters are loaded already")));
    }
    let path = below(root, &request.lora_path)?;
    let config = app.model.config.clone();
    let hidden = format!("{}/", root.display());
    let work = tokio::task::spawn_blocking(move || {
        let adapter = Adapter::load(&path, &config).map_err(|error| unusable(&error, &hidden))?;
        let format = ThoughtFormat::beside(&path).map_err(|error| unusable(&error, &hidden))?;
        Ok::<_, ApiError>((adapter, format))
    });
    let loaded = work.await;
    let (adapter, format) = loaded.map_err(|_| ApiError::internal("loading was stopped"))??;
    let entry = LoadedAdapter {
        name: name.clone(),
        masked: adapter.invocation.is_some(),
        rank: adapter.rank_max,
        format: format.clone(),
        own: false,
    };
    let command = |reply| Command::Load {
        name: name.clone(),
        adapter: Box::new(adapter),
        format,
        replace,
        reply,
    };
    app.worker.ask(command).await?;
    app.with_adapters(|adapters| {
        adapters.retain(|adapter| adapter.name != entry.name);
        adapters.push(entry);
    });
    Ok(Json(AdapterDone {
        name,
        status: "loaded",
    }))
}

/// Forgets an adapter that was loaded at run time. Requests that run with it are answered; those that wait for room are refused.
#[utoipa::path(
    post,
    path = "/v1/unload_lora_adapter",
    tag = "Management",
    request_body = UnloadRequest,
    responses(
        (status = 200, description = "It is gone", body = AdapterDone),
        (status = 400, description = "A field is wrong, and is named", body = ErrorBody),
        (status = 403, description = "The server has no adapter root", body = ErrorBody),
        (status = 404, description = "No such adapter", body = ErrorBody),
        (status = 409, description = "It came with the model", body = ErrorBody),
    )
)]
pub(crate) async fn unload(
    State(app): State<App>,
    Body(request): Body<UnloadRequest>,
) -> Result<Json<AdapterDone>, ApiError> {
    root(&app)?;
    let name = request.lora_name;
    let known = app.adapter(&name).map_err(|error| ApiError {
        param: Some("lora_name".to_owned()),
        ..error
    })?;
    if known.own {
        return Err(conflict(format!("{name:?} came with the model and stays")));
    }
    let command = |reply| Command::Unload {
        name: name.clone(),
        reply,
    };
    app.worker.ask(command).await?;
    app.with_adapters(|adapters| adapters.retain(|adapter| adapter.name != name));
    Ok(Json(AdapterDone {
        name,
        status: "unloaded",
    }))
}

fn conflict(message: String) -> ApiError {
    ApiError {
        param: Some("lora_name".to_owned()),
        ..ApiError::with_code(StatusCode::CONFLICT, "adapter_conflict", message)
    }
}

/// Without the root's own path, which is nobody's business.
fn unusable(error: &dyn std::error::Error, hidden: &str) -> ApiError {
    let why = told(error).replace(hidden, "");
    ApiError::bad("lora_path", format!("it cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).expect("a directory");
        std::fs::create_dir_all(dir.path().join("secret")).expect("a directory");
        let root = root.canonicalize().expect("a path");
        assert_eq!(below(&root, "a/b").ok(), Some(root.join("a/b")));
        assert_eq!(below(&root, "./a").ok(), Some(root.join("a")));
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).expect("a link");
        let absolute = dir.path().join("secret");
        let absolute = absolute.to_str().expect("UTF-8");
        for path in ["", "..", "a/../../secret", "link", "none", absolute, "/etc"] {
            let error = below(&root, path).expect_err(path);
            assert_eq!(error.param.as_deref(), Some("lora_path"));
        }
    }
}
