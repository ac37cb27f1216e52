//! A loaded model: everything that a directory or a GGUF file says, checked to fit together.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::bundle::Bundle;
use crate::hub::{Hub, HubId};
use crate::{
    ChatTemplate, Config, ContentHash, GenerationConfig, LoadError, Tokenizer, Weights, hf,
};

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory in the form of Hugging Face.
    Directory(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A bundle.
    Bundle(PathBuf),
    /// Made by the program.
    Memory,
}

/// How a model is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Use the network never, as if HF_HUB_OFFLINE were set.
    pub offline: bool,
    /// Draw a bar on stderr for each download.
    pub progress: bool,
}

/// A model. Its weights are mapped, so loading costs little memory until they are used.
#[derive(Debug)]
pub struct Model {
    /// Shape and constants.
    pub config: Config,
    /// All tensors.
    pub weights: Weights,
    /// `None` if the model came without one.
    pub tokenizer: Option<Tokenizer>,
    /// `None` if the model came without one: a base model that was never taught to chat.
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer, and advised sampling.
    pub generation: GenerationConfig,
    /// Where it came from.
    pub source: Source,
    hash: OnceLock<ContentHash>,
}

impl Model {
    /// Loads a directory, a `.gguf` file, the base of a `.edgethink` bundle, or a hub id such as `Qwen/Qwen2.5-0.5B-Instruct`.
    ///
    /// # Errors
    /// [`LoadError`], which names what is wrong and what to do.
    pub fn load(path_or_hub_id: &str) -> Result<Self, LoadError> {
        Self::load_with(path_or_hub_id, LoadOptions::default())
    }

    /// As [`Model::load`], with options for the hub. What exists on the disk is never looked for on the hub.
    ///
    /// # Errors
    /// [`LoadError`], which names what is wrong and what to do.
    pub fn load_with(path_or_hub_id: &str, options: LoadOptions) -> Result<Self, LoadError> {
        let path = Path::new(path_or_hub_id);
        match HubId::parse(path_or_hub_id) {
            Some(id) if !path.exists() => {
                let hub = Hub::from_env(options.offline, options.progress);
                let fetched = hub.and_then(|hub| hub.fetch(&id));
                let name = path_or_hub_id.to_owned();
                Self::load_path(&fetched.map_err(|source| LoadError::Hub { name, source })?)
            }
            _ => Self::load_path(path),
        }
    }

    fn load_path(path: &Path) -> Result<Self, LoadError> {
        if path.is_dir() {
            return hf::load_dir(path);
        }
        if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
        {
            return crate::gguf::load(path);
        }
        if Bundle::is_one(path) && path.is_file() {
            let model = Bundle::open(path).and_then(|bundle| bundle.model());
            return model.map_err(|source| LoadError::Bundle {
                path: path.to_path_buf(),
                source: Box::new(source),
            });
        }
        Err(LoadError::NotAModel {
            name: path.display().to_string(),
        })
    }

    /// Puts checked parts together.
    ///
    /// # Errors
    /// [`LoadError::VocabMismatch`] if the tokenizer has an id that the embedding has no row for.
    pub fn from_parts(
        config: Config,
        weights: Weights,
        tokenizer: Option<Tokenizer>,
        template: Option<ChatTemplate>,
        generation: GenerationConfig,
        source: Source,
    ) -> Result<Self, LoadError> {
        if let Some((token, id)) = tokenizer.as_ref().and_then(Tokenizer::last_token)
            && id as usize >= config.vocab_size
        {
            return Err(LoadError::VocabMismatch {
                token,
                id,
                vocab_size: config.vocab_size,
            });
        }
        Ok(Self {
            config,
            weights,
            tokenizer,
            template,
            generation,
            source,
            hash: OnceLock::new(),
        })
    }

    /// Identity of the config and all weights. The first call reads every byte once (about 1 GB/s); it does not make
    /// mapped weights resident.
    ///
    /// # Errors
    /// The system's error for a failed read.
    pub fn hash(&self) -> io::Result<ContentHash> {
        if let Some(&hash) = self.hash.get() {
            return Ok(hash);
        }
        let hash = self.content_hash()?;
        Ok(*self.hash.get_or_init(|| hash))
    }

    /// As [`Model::hash`], read now.
    pub(crate) fn content_hash(&self) -> io::Result<ContentHash> {
        ContentHash::of(&self.config.to_json(), self.weights.named())
    }

    /// Takes the identity from where it was written down.
    pub(crate) fn trust_hash(&self, hash: ContentHash) {
        self.hash.get_or_init(|| hash);
    }
}
