//! Models by hub id: `org/name`, `org/name@revision`, `org/name/file.gguf`; and files of data sets.
//!
//! Files go into the cache that all Hugging Face tools share, through the hub's own client. A model that is in the cache
//! completely is used without asking the network. The environment is obeyed as huggingface_hub does: HF_HOME,
//! HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE, HF_ENDPOINT, and XDG_CACHE_HOME.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use serde_json::Value;
use thiserror::Error;

use crate::json::parse_object_bytes;

/// Fetched when they exist. The weights come last, so that a model with weights in the cache is a whole one.
const SMALL_FILES: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "tokenizer.json",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model could not be had from the hub.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// The network may not be used and the cache lacks a file.
    #[error("`{id}` is not completely in the cache {} ({file} is missing) and the network is switched off; \
             load it once without --offline and HF_HUB_OFFLINE, or give a local path", cache.display())]
    Offline {
        /// The hub id.
        id: String,
        /// The first file that is missing.
        file: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The hub does not know the model or the file.
    #[error(
        "{endpoint} has no `{id}` with a file {file}; check the spelling, and HF_TOKEN if it is private"
    )]
    NotFound {
        /// The hub id.
        id: String,
        /// The file that was asked for.
        file: String,
        /// The hub.
        endpoint: String,
    },
    /// The hub wants a token or an accepted licence.
    #[error(
        "{endpoint} refuses `{id}` (status {status}); accept its licence on the hub and set HF_TOKEN"
    )]
    Refused {
        /// The hub id.
        id: String,
        /// The hub.
        endpoint: String,
        /// 401 or 403.
        status: u16,
    },
    /// The hub cannot be reached, or the transfer broke off.
    #[error("cannot download {file} of `{id}` from {endpoint}; try again, or give a local path")]
    Transfer {
        /// The hub id.
        id: String,
        /// The file.
        file: String,
        /// The hub.
        endpoint: String,
        /// Why.
        source: Box<ApiError>,
    },
    /// The index of a sharded model is damaged.
    #[error("the index of `{id}` is damaged: {problem}")]
    Index {
        /// The hub id.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no place for a cache.
    #[error("there is no home directory for the cache; set HF_HOME")]
    NoCache,
}

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    /// `org/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// One GGUF file instead of a whole model.
    pub file: Option<String>,
}

impl HubId {
    /// Reads `org/name`, `org/name@revision` or `org/name/file.gguf`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (path, revision) = text.split_once('@').unwrap_or((text, "main"));
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty()
                && part.len() < 97
                && !part.starts_with('.')
                && !part.contains("..")
                && part.chars().all(allowed)
        };
        let parts: Vec<&str> = path.split('/').collect();
        let file = match parts[..] {
            [_, _] => None,
            [_, _, file] if file.ends_with(".gguf") => Some(file.to_owned()),
            _ => return None,
        };
        let repo = format!("{}/{}", parts[0], parts[1]);
        (parts.into_iter().all(plain) && plain(revision)).then(|| Self {
            repo,
            revision: revision.to_owned(),
            file,
        })
    }
}

/// The hub and its cache.
#[derive(Debug, Clone)]
pub struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    offline: bool,
    progress: bool,
}

impl Hub {
    /// Reads the environment. `offline` switches the network off as HF_HUB_OFFLINE does; `progress` draws bars on stderr.
    ///
    /// # Errors
    /// [`HubError::NoCache`] if neither HF_HOME nor a home directory is known.
    pub fn from_env(offline: bool, progress: bool) -> Result<Self, HubError> {
        let mut hub = Self::from_vars(|name| std::env::var(name).ok())?;
        hub.offline |= offline;
        hub.progress = progress;
        Ok(hub)
    }

    /// As [`Hub::from_env`], with the variables that `var` gives.
    ///
    /// # Errors
    /// [`HubError::NoCache`] if neither HF_HOME nor a home directory is known.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let caches = || {
            Some(var("XDG_CACHE_HOME").map_or(std::env::home_dir()?.join(".cache"), PathBuf::from))
        };
        let home = match var("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => caches().ok_or(HubError::NoCache)?.join("huggingface"),
        };
        let cache = var("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from);
        let token_file = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = var("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file).ok());
        let token = token
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let truth = |value: String| {
            matches!(
                value.to_ascii_uppercase().as_str(),
                "1" | "ON" | "YES" | "TRUE"
            )
        };
        Ok(Self {
            cache,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            offline: var("HF_HUB_OFFLINE").is_some_and(truth),
            progress: false,
        })
    }

    /// The directory or GGUF file of a model, downloaded if the cache does not have it.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn fetch(&self, id: &HubId) -> Result<PathBuf, HubError> {
        let cached = Cached {
            id,
            repo: Cache::new(self.cache.clone()).repo(self.repo(id)),
        };
        let missing = match cached.complete()? {
            Ok(path) => return Ok(path),
            Err(missing) => missing,
        };
        if self.offline {
            return Err(HubError::Offline {
                id: id.repo.clone(),
                file: missing,
                cache: self.cache.clone(),
            });
        }
        let api = self.api(id, "config.json", self.repo(id))?;
        if let Some(file) = &id.file {
            return self.get(&api, id, file);
        }
        let config = self.get(&api, id, SMALL_FILES[0])?;
        for file in &SMALL_FILES[1..] {
            self.get_optional(&api, id, file)?;
        }
        if self.get_optional(&api, id, WEIGHTS)?.is_none() {
            let index = self.get(&api, id, INDEX)?;
            for shard in shards(id, &index)? {
                self.get(&api, id, &shard)?;
            }
        }
        Ok(config.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    /// A file of a data set, downloaded if the cache does not have it.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn data_file(&self, repo: &str, revision: &str, file: &str) -> Result<PathBuf, HubError> {
        let id = HubId {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            file: Some(file.to_owned()),
        };
        let repo = Repo::with_revision(repo.to_owned(), RepoType::Dataset, id.revision.clone());
        if let Some(path) = Cache::new(self.cache.clone()).repo(repo.clone()).get(file) {
            return Ok(path);
        }
        if self.offline {
            return Err(HubError::Offline {
                id: id.repo,
                file: file.to_owned(),
                cache: self.cache.clone(),
            });
        }
        self.get(&self.api(&id, file, repo)?, &id, file)
    }

    fn api(&self, id: &HubId, file: &str, repo: Repo) -> Result<ApiRepo, HubError> {
        let api = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_retries(3)
            .with_progress(self.progress)
            .build()
            .map_err(|e| self.failed(id, file, e))?;
        Ok(api.repo(repo))
    }

    fn repo(&self, id: &HubId) -> Repo {
        Repo::with_revision(id.repo.clone(), RepoType::Model, id.revision.clone())
    }

    fn get(&self, api: &ApiRepo, id: &HubId, file: &str) -> Result<PathBuf, HubError> {
        api.get(file).map_err(|e| self.failed(id, file, e))
    }

    fn get_optional(
        &self,
        api: &ApiRepo,
        id: &HubId,
        file: &str,
    ) -> Result<Option<PathBuf>, HubError> {
        match self.get(api, id, file) {
            Ok(path) => Ok(Some(path)),
            Err(HubError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn failed(&self, id: &HubId, file: &str, error: ApiError) -> HubError {
        let (endpoint, file) = (self.endpoint.clone(), file.to_owned());
        let status = match &error {
            ApiError::RequestError(request) => match **request {
                ureq::Error::StatusCode(status) => status,
                _ => 0,
            },
            _ => 0,
        };
        let id = id.repo.clone();
        match status {
            404 => HubError::NotFound { id, file, endpoint },
            401 | 403 => HubError::Refused {
                id,
                endpoint,
                status,
            },
            _ => HubError::Transfer {
                id,
                file,
                endpoint,
                source: Box::new(error),
            },
        }
    }
}

/// A model in the cache.
struct Cached<'a> {
    id: &'a HubId,
    repo: CacheRepo,
}

impl Cached<'_> {
    /// The path of the model, or the first file that is missing.
    fn complete(&self) -> Result<Result<PathBuf, String>, HubError> {
        let need = |file: &str| self.repo.get(file).ok_or_else(|| file.to_owned());
        if let Some(file) = &self.id.file {
            return Ok(need(file));
        }
        let config = match need(SMALL_FILES[0]) {
            Ok(config) => config,
            Err(file) => return Ok(Err(file)),
        };
        if self.repo.get(WEIGHTS).is_none() {
            let Some(index) = self.repo.get(INDEX) else {
                return Ok(Err(WEIGHTS.to_owned()));
            };
            if let Some(file) = shards(self.id, &index)?
                .into_iter()
                .find(|shard| self.repo.get(shard).is_none())
            {
                return Ok(Err(file));
            }
        }
        Ok(Ok(config
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default()))
    }
}

/// The files that an index names: plain names, each once.
fn shards(id: &HubId, index: &Path) -> Result<Vec<String>, HubError> {
    let damaged = |problem: String| HubError::Index {
        id: id.repo.clone(),
        problem,
    };
    let text = std::fs::read(index).map_err(|e| damaged(e.to_string()))?;
    let map = parse_object_bytes(&text).map_err(|e| damaged(e.to_string()))?;
    let Some(Value::Object(weight_map)) = map.get("weight_map") else {
        return Err(damaged("it has no weight_map".to_owned()));
    };
    let mut files = Vec::new();
    for file in weight_map.values() {
        match file.as_str() {
            Some(file) if file.ends_with(".safetensors") && !file.contains(['/', '\\', '\0']) => {
                files.push(file.to_owned())
            }
            _ => return Err(damaged(format!("{file} is no file name"))),
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let id = HubId::parse("Qwen/Qwen2.5-0.5B-Instruct").unwrap();
        assert_eq!(
            (id.repo.as_str(), id.revision.as_str(), id.file),
            ("Qwen/Qwen2.5-0.5B-Instruct", "main", None)
        );
        let id = HubId::parse("a/b_c@v1.0").unwrap();
        assert_eq!((id.repo.as_str(), id.revision.as_str()), ("a/b_c", "v1.0"));
        assert_eq!(
            HubId::parse("a/b/c-q4_0.gguf").unwrap().file.as_deref(),
            Some("c-q4_0.gguf")
        );
        for bad in [
            "",
            "a",
            "a/",
            "/b",
            "../b",
            "a/..",
            "a/b/c",
            "a/b c",
            "./a/b",
            "a/b@",
            "a/b@../x",
            "a/b/../c.gguf",
        ] {
            assert_eq!(HubId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_environment_is_obeyed() {
        let hub = |vars: &[(&str, &str)]| {
            Hub::from_vars(|name| {
                vars.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| (*v).to_owned())
            })
            .unwrap()
        };
        let plain = hub(&[("HF_HOME", "/h")]);
        assert_eq!(plain.cache, Path::new("/h/hub"));
        assert_eq!(
            (plain.endpoint.as_str(), plain.offline),
            ("https://huggingface.co", false)
        );
        let all = hub(&[
            ("HF_HOME", "/h"),
            ("HF_HUB_CACHE", "/c"),
            ("HF_TOKEN", " t\n"),
            ("HF_HUB_OFFLINE", "true"),
            ("HF_ENDPOINT", "http://localhost:1/"),
        ]);
        assert_eq!(
            (all.cache.as_path(), all.token.as_deref()),
            (Path::new("/c"), Some("t"))
        );
        assert_eq!(
            (all.endpoint.as_str(), all.offline),
            ("http://localhost:1", true)
        );
        assert_eq!(
            hub(&[("XDG_CACHE_HOME", "/x")]).cache,
            Path::new("/x/huggingface/hub")
        );
    }
}
