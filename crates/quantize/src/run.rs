//! A whole model: embedding, one layer after the other, lm_head; each transformed, rounded, and put aside before the next is read.
//!
//! Memory holds one layer as f32, its input's Hessian where one is wanted, and the calibration text's hidden states. What is finished
//! lies in the work directory (`work`), so a kill costs one layer, and going on gives the same bytes.

use std::collections::BTreeMap;
use std::path::Path;

use edgethink_model::gguf::{ExportOptions, save_model};
use edgethink_model::{Config, Linear, Model, Source, Tensor, Weights};

use crate::error::QuantizeError;
use crate::forward::{Stream, rms_norm};
use crate::gptq::{Hessian, gptq};
use crate::layer::{Layer, read_rows};
use crate::rounding::{at_shares, nearest, tensor};
use crate::scheme::{Calibration, Format, Rounding, Scheme};
use crate::trained::Trained;
use crate::transforms::Plan;
use crate::work::{Identity, Named, Work};

/// Elements of the embedding or lm_head that are f32 at a time.
const CHUNK: usize = 1 << 24;
const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The scheme.
    pub scheme: &'a Scheme,
    /// Tokens of the calibration text.
    pub calibration: Option<&'a [u32]>,
    /// Transforms and ranges that were trained for this model and scheme.
    pub trained: Option<&'a Trained>,
    /// The GGUF file to be written.
    pub out: &'a Path,
    /// `general.name` of it.
    pub name: &'a str,
    /// Threads, at least one. They never change a result.
    pub threads: usize,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Weights done.
    pub done: u64,
    /// Weights of the whole model.
    pub total: u64,
    /// The part at work.
    pub part: String,
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Weights that are stored, an untied lm_head counted too.
    pub weights: u64,
    /// Bytes of the tensors that the model came with.
    pub source_bytes: u64,
    /// Bytes of the tensors now, scales and repeated scales included.
    pub stored_bytes: u64,
    /// Bytes of the file, with metadata and tokenizer.
    pub file_bytes: u64,
}

/// Quantizes `model`. `watch` is told of progress and stops the run by returning false.
///
/// # Errors
/// [`QuantizeError`]; [`QuantizeError::Stopped`] if `watch` said so. The same call then goes on.
pub fn quantize(
    model: Model,
    job: &Job<'_>,
    watch: &mut dyn FnMut(&Progress) -> bool,
) -> Result<Report, QuantizeError> {
    job.scheme.validate()?;
    if job.trained.is_some() {
        job.scheme.rounds_to_nearest()?;
    }
    let plan = Plan::new(&model.config, job.scheme.transforms)?;
    let calibration = calibration(&model.config, job)?;
    let hash = model.hash().map_err(QuantizeError::io(job.out))?;
    let identity = Identity {
        model: hash.to_string(),
        scheme: job.scheme.clone(),
        calibration: calibration.map(|(_, tokens)| {
            blake3::hash(bytemuck::cast_slice(tokens))
                .to_hex()
                .to_string()
        }),
        trained: job.trained.map(Trained::hash),
    };
    let work = Work::open(job.out, &identity)?;
    let mut run = Run {
        model: &model,
        config: plan.config(),
        plan,
        job,
        work,
        calibration,
        done: 0,
        watch,
    };
    let named = run.parts();
    let (config, work) = (run.config, run.work);
    let named = match named {
        Ok(named) => named,
        Err(error) => {
            // The same scheme would be refused again, so what was done serves nobody and is not left in the way of another.
            if !error.may_go_on() {
                work.remove()?;
            }
            return Err(error);
        }
    };
    let source_bytes = model.weights.size_bytes() as u64;

    let weights = Weights::from_named(&config, named)?;
    let stored_bytes = weights.size_bytes() as u64;
    let Model {
        tokenizer,
        template,
        generation,
        ..
    } = model;
    let quantized = Model::from_parts(
        config,
        weights,
        tokenizer,
        template,
        generation,
        Source::Memory,
    )?;
    let options = ExportOptions {
        name: job.name,
        dtype: None,
    };
    save_model(&quantized, job.out, &options, &mut |_, _| ())?;
    let size = std::fs::metadata(job.out).map_err(QuantizeError::io(job.out))?;
    work.remove()?;
    Ok(Report {
        weights: quantized.config.parameters() as u64,
        source_bytes,
        stored_bytes,
        file_bytes: size.len(),
    })
}

/// The part of the calibration text that the scheme asks for; `None` if it needs none.
fn calibration<'a>(
    config: &Config,
    job: &Job<'a>,
) -> Result<Option<(Calibration, &'a [u32])>, QuantizeError> {
    let Some(wanted) = job
        .scheme
        .calibration
        .filter(|_| job.scheme.needs_calibration())
    else {
        return Ok(None);
    };
    let tokens = job.calibration.ok_or(QuantizeError::NoCalibration)?;
    let needed = wanted.ctx * wanted.chunks;
    let tokens = tokens
        .get(..needed)
        .ok_or(QuantizeError::ShortCalibration {
            found: tokens.len(),
            needed,
        })?;
    let vocab_size = config.vocab_size;
    match tokens.iter().position(|&id| id as usize >= vocab_size) {
        Some(index) => Err(QuantizeError::Token {
            index,
            id: tokens[index],
            vocab_size,
        }),
        None => Ok(Some((wanted, tokens))),
    }
}

struct Run<'a> {
    model: &'a Model,
    /// Of the model to be written.
    config: Config,
    plan: Plan,
    job: &'a Job<'a>,
    work: Work,
    calibration: Option<(Calibration, &'a [u32])>,
    /// Weights done.
    done: u64,
    watch: &'a mut dyn FnMut(&Progress) -> bool,
}

impl Run<'_> {
    /// All tensors, made or found in the work directory.
    fn parts(&mut self) -> Result<BTreeMap<String, Tensor>, QuantizeError> {
        let layers = self.config.num_hidden_layers;
        let untied = !self.config.tie_word_embeddings;
        // The hidden states are kept while a later part needs them.
        let mut stream: Option<(usize, Stream)> = None;
        let mut all = BTreeMap::new();
        all.extend(match self.work.part("embedding")? {
            Some(named) => self.found("embedding", named)?,
            None => self.embedding()?,
        });
        for index in 0..layers {
            let part = format!("layer-{index:04}");
            all.extend(match self.work.part(&part)? {
                Some(named) => self.found(&part, named)?,
                None => {
                    self.catch_up(&mut stream, index, &all[EMBEDDING])?;
                    self.layer(index, stream.as_mut().map(|(_, stream)| stream))?
                }
            });
            if let Some((at, _)) = &mut stream {
                *at = index + 1;
            }
        }
        let mut norm = self.model.weights.norm.to_f32();
        if untied {
            all.extend(match self.work.part("lm_head")? {
                Some(named) => self.found("lm_head", named)?,
                None => {
                    self.catch_up(&mut stream, layers, &all[EMBEDDING])?;
                    self.lm_head(stream.as_ref().map(|(_, stream)| stream), &norm)?
                }
            });
        }
        self.plan.fold_norm(&mut norm);
        all.insert("model.norm.weight".to_owned(), vector(&norm));
        Ok(all)
    }

    /// Counts a part that an earlier run finished.
    fn found(&mut self, part: &str, named: Named) -> Result<Named, QuantizeError> {
        let weights = named.iter().map(|(_, tensor)| tensor.len() as u64).sum();
        self.advance(weights, part)?;
        Ok(named)
    }

    fn advance(&mut self, weights: u64, part: &str) -> Result<(), QuantizeError> {
        self.done += weights;
        let progress = Progress {
            done: self.done,
            total: self.config.parameters() as u64,
            part: part.to_owned(),
        };
        if (self.watch)(&progress) {
            return Ok(());
        }
        let path = self.work.dir().to_path_buf();
        Err(QuantizeError::Stopped { path })
    }

    /// Makes sure that `stream` holds the hidden states after `layers` layers, if the scheme needs them.
    fn catch_up(
        &self,
        stream: &mut Option<(usize, Stream)>,
        layers: usize,
        embedding: &Tensor,
    ) -> Result<(), QuantizeError> {
        let Some((Calibration { ctx, .. }, tokens)) = self.calibration else {
            return Ok(());
        };
        if stream.as_ref().is_some_and(|(at, _)| *at == layers) {
            return Ok(());
        }
        let x = if layers == 0 {
            let e = self.config.hidden_size;
            let mut x = vec![0.0; tokens.len() * e];
            for (row, &token) in x.chunks_exact_mut(e).zip(tokens) {
                embedding.dequantize_rows(token as usize..token as usize + 1, row);
            }
            x
        } else {
            self.work.stream(layers)?
        };
        let threads = self.job.threads;
        *stream = Some((layers, Stream { ctx, x, threads }));
        Ok(())
    }

    fn embedding(&mut self) -> Result<Named, QuantizeError> {
        let scheme = self.job.scheme;
        let format = if self.config.tie_word_embeddings {
            scheme.tied
        } else {
            scheme.embedding
        };
        let table = self.model.weights.embed_tokens.clone();
        let threads = self.job.threads;
        let tensor = self.rows(
            "embedding",
            EMBEDDING,
            &table,
            &format,
            |run, first, rows| {
                run.plan.fold_embedding(rows, threads);
                run.nearest(EMBEDDING, first, rows, table.cols(), &format)
            },
        )?;
        let named = vec![(EMBEDDING.to_owned(), tensor)];
        self.work.finish("embedding", named)
    }

    fn lm_head(&mut self, stream: Option<&Stream>, norm: &[f32]) -> Result<Named, QuantizeError> {
        let format = self.job.scheme.lm_head;
        let threads = self.job.threads;
        let table = self.model.weights.output().clone();
        let factor = match stream.filter(|_| format.rounding == Rounding::Gptq) {
            Some(stream) => {
                let mut left = norm.to_vec();
                self.plan.fold_norm(&mut left);
                let input = rms_norm(&stream.x, &left, self.config.rms_norm_eps);
                Some(self.factor(LM_HEAD, table.cols(), &input)?)
            }
            None => None,
        };
        let tensor = self.rows("lm_head", LM_HEAD, &table, &format, |run, first, rows| {
            run.plan.fold_lm_head(rows, norm, threads);
            match &factor {
                Some(factor) => gptq(LM_HEAD, rows, table.cols(), &format, factor, threads),
                None => run.nearest(LM_HEAD, first, rows, table.cols(), &format),
            }
        })?;
        let named = vec![(LM_HEAD.to_owned(), tensor)];
        self.work.finish("lm_head", named)
    }

    /// Rounds a tall matrix a run of rows at a time; `round` is told which row is the first.
    fn rows(
        &mut self,
        part: &str,
        name: &str,
        table: &Tensor,
        format: &Format,
        round: impl Fn(&Self, usize, &mut [f32]) -> Result<Tensor, QuantizeError>,
    ) -> Result<Tensor, QuantizeError> {
        format.group_len(name, table.cols())?;
        let step = (CHUNK / table.cols()).max(1);
        let mut parts = Vec::new();
        for first in (0..table.rows()).step_by(step) {
            let range = first..(first + step).min(table.rows());
            let mut rows = read_rows(table, range).map_err(QuantizeError::io(self.job.out))?;
            let rounded = round(self, first, &mut rows)?;
            self.advance(rows.len() as u64, part)?;
            parts.push(Ok(rounded.bytes().to_vec()));
        }
        tensor(parts, vec![table.rows(), table.cols()], format)
    }

    /// Rounds rows of a matrix, from row `first` on, to the nearest codes: at the trained ranges, or at those that the scheme finds.
    fn nearest(
        &self,
        name: &str,
        first: usize,
        rows: &[f32],
        cols: usize,
        format: &Format,
    ) -> Result<Tensor, QuantizeError> {
        let threads = self.job.threads;
        let Some(trained) = self.job.trained else {
            return nearest(name, rows, cols, format, threads);
        };
        let groups = cols / format.group_len(name, cols)?;
        let wanted = first * groups..(first + rows.len() / cols) * groups;
        let shares = trained.shares.get(name).and_then(|all| all.get(wanted));
        at_shares(
            name,
            rows,
            cols,
            format,
            shares.unwrap_or_default(),
            threads,
        )
    }

    fn factor(
        &self,
        name: &str,
        cols: usize,
        input: &[f32],
    ) -> Result<crate::gptq::Factor, QuantizeError> {
        let settings = self
            .job
            .scheme
            .gptq
            .as_ref()
            .expect("validate asks for [gptq]");
        let ctx = self.job.scheme.calibration.map_or(1, |c| c.ctx);
        let mut hessian = Hessian::new(cols);
        for chunk in input.chunks(ctx * cols) {
            hessian.add(chunk, self.job.threads);
        }
        hessian.factor(name, settings)
    }

    fn layer(&mut self, index: usize, stream: Option<&mut Stream>) -> Result<Named, QuantizeError> {
        let part = format!("layer-{index:04}");
        let config = self.config.clone();
        let mut layer = Layer::read(&config, &self.model.weights.layers[index])
            .map_err(QuantizeError::io(self.job.out))?;
        self.plan.fold_layer(&mut layer, self.job.threads);
        if let Some(trained) = self.job.trained.and_then(|t| t.layers.get(index)) {
            trained.fold(&mut layer, &config);
        }
        let format = self.job.scheme.linears;
        let prefix = format!("model.layers.{index}.");
        let mut named = Vec::new();
        let mut round =
            |run: &mut Self, layer: &mut Layer, group: &[Linear], input: Option<&[f32]>| {
                let mut factor = None;
                for &linear in group {
                    let name = format!("{prefix}{}.weight", linear.hf_name());
                    let matrix = layer.linear_mut(linear);
                    if let Some(input) =
                        input.filter(|_| factor.is_none() && format.rounding == Rounding::Gptq)
                    {
                        factor = Some(run.factor(&name, matrix.cols, input)?);
                    }
                    let (values, cols, threads) = (&matrix.values, matrix.cols, run.job.threads);
                    let rounded = match &factor {
                        Some(factor) => gptq(&name, values, cols, &format, factor, threads)?,
                        None => run.nearest(&name, 0, values, cols, &format)?,
                    };
                    run.advance(matrix.values.len() as u64, &part)?;
                    if input.is_some() {
                        matrix.values = rounded.to_f32();
                    }
                    named.push((name, rounded));
                }
                Ok(())
            };
        match stream {
            Some(stream) => {
                stream.layer(&config, &mut layer, |layer, group, input| {
                    round(self, layer, group, Some(input))
                })?;
                if stream.x.iter().any(|x| !x.is_finite()) {
                    return Err(QuantizeError::Diverged { layer: index });
                }
                self.work.put_stream(index + 1, &stream.x)?;
            }
            None => round(self, &mut layer, &Linear::ALL, None)?,
        }
        for linear in Linear::ALL {
            if let Some(bias) = &layer.biases[linear as usize] {
                named.push((format!("{prefix}{}.bias", linear.hf_name()), vector(bias)));
            }
        }
        let norms = [
            ("input_layernorm", Some(&layer.input_layernorm)),
            (
                "post_attention_layernorm",
                Some(&layer.post_attention_layernorm),
            ),
            ("self_attn.q_norm", layer.qk_norm.as_ref().map(|(q, _)| q)),
            ("self_attn.k_norm", layer.qk_norm.as_ref().map(|(_, k)| k)),
        ];
        for (name, norm) in norms {
            named.extend(norm.map(|norm| (format!("{prefix}{name}.weight"), vector(norm))));
        }
        self.work.finish(&part, named)
    }
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::from_f32(vec![values.len()], values).expect("as many values as it has")
}
