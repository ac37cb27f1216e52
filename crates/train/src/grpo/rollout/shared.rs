//! Completions drawn by several processes: each draws its share of the prompts by its own engine, and all get all of them.
//!
//! A draw is a function of its seed, its stream and its position, and the seeds of a draw count up with its prompts. So the completions are those
//! that one process would draw, whatever the number of processes. Servers are asked by the process that leads, for all: the requests are
//! spread there already.

use super::{Completion, Draws, RolloutBackend, ServerCount};
use crate::{error::TrainError, grpo::questions::Prompt, params::Param, process_group::Line};

/// A backend together with those of the other processes.
pub(crate) struct Shared<'a> {
    /// What this process draws by; none if it leaves that to the one that leads.
    pub own: Option<Box<dyn RolloutBackend + 'a>>,
    /// Every process has one, and draws a share.
    pub each: bool,
    /// To the others.
    pub line: &'a mut Line,
}

impl RolloutBackend for Shared<'_> {
    fn update(&mut self, version: u64, params: &[Param]) -> Result<(), TrainError> {
        match &mut self.own {
            Some(own) => own.update(version, params),
            None => Ok(()),
        }
    }

    fn draw(
        &mut self,
        prompts: &[Prompt],
        draws: Draws,
    ) -> Result<Vec<Vec<Completion>>, TrainError> {
        let mine = if self.each {
            self.line.share(prompts.len())
        } else {
            0..prompts.len()
        };
        let own = match &mut self.own {
            Some(own) => {
                let seed = draws.seed.wrapping_add(mine.start as u64);
                own.draw(&prompts[mine], Draws { seed, ..draws })?
            }
            None => Vec::new(),
        };
        let words = self
            .line
            .concat(own.iter().flatten().flat_map(words).collect())?;
        let all = completions(&words).filter(|all| all.len() == prompts.len() * draws.n);
        let all = all.ok_or_else(|| TrainError::Group {
            problem: "the processes drew other completions than were asked for; run the same program in all of them".to_owned(),
        })?;
        Ok(all.chunks(draws.n).map(<[_]>::to_vec).collect())
    }

    fn told(&self) -> String {
        match &self.own {
            Some(_) if self.each && self.line.size() > 1 => {
                format!("rollouts by the engines of {} processes", self.line.size())
            }
            Some(own) => own.told(),
            None => "rollouts by the process that leads".to_owned(),
        }
    }

    fn servers(&self) -> Option<ServerCount> {
        self.own.as_ref().and_then(|own| own.servers())
    }
}

/// A completion as numbers: twice its length, plus 1 if it ended; its tokens; the bits of their log-probabilities.
fn words(completion: &Completion) -> Vec<u32> {
    let head = (completion.tokens.len() as u32) << 1 | u32::from(completion.ended);
    let logprobs = completion.logprobs.iter().map(|value| value.to_bits());
    let body = completion.tokens.iter().copied().chain(logprobs);
    std::iter::once(head).chain(body).collect()
}

/// The completions of many [`words`]; `None` if they are cut short.
fn completions(words: &[u32]) -> Option<Vec<Completion>> {
    let mut all = Vec::new();
    let mut words = words;
    while let Some((&head, rest)) = words.split_first() {
        let length = (head >> 1) as usize;
        let (tokens, rest) = rest.split_at_checked(length)?;
        let (logprobs, rest) = rest.split_at_checked(length)?;
        all.push(Completion {
            tokens: tokens.to_vec(),
            logprobs: logprobs.iter().map(|&bits| f32::from_bits(bits)).collect(),
            ended: head & 1 == 1,
            version: 0,
        });
        words = rest;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_come_back_from_their_numbers() {
        let completion = |tokens: &[u32], ended| Completion {
            tokens: tokens.to_vec(),
            logprobs: tokens.iter().map(|&id| -(id as f32) / 3.0).collect(),
            ended,
            version: 0,
        };
        let sent = [
            completion(&[7, 1, u32::MAX], true),
            completion(&[], false),
            completion(&[5], false),
        ];
        let numbers: Vec<u32> = sent.iter().flat_map(words).collect();
        assert_eq!(completions(&numbers).as_deref(), Some(&sent[..]));
        assert_eq!(completions(&numbers[..numbers.len() - 1]), None);
        assert_eq!(completions(&[u32::MAX]), None);
    }
}
