//! The very first texts: words repeated and pairs shuffled. A small model learns from them, in a few hundred steps, to find an earlier
//! word and go on from it; looking things up in sentences builds on that and would otherwise take several times as long.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::scenario::{NAMES, WORD_GROUPS};
use crate::seed::pick;

/// "Say: Tom red Anna 12." as the prompt, and the same line one to three times as what is learnt.
pub(crate) fn repeat<R: Rng>(rng: &mut R) -> (String, String) {
    let group = group(rng);
    let most = group.len().min(14);
    let mut words: Vec<String> = Vec::new();
    let count = rng.random_range(6..=most);
    for &word in group.choose_multiple(rng, count).collect::<Vec<_>>() {
        words.push(word.to_owned());
        if rng.random_bool(0.35) {
            words.push(match rng.random_range(0..10) {
                0 => rng.random_range(2..=99_u32).to_string(),
                _ => pick(
                    rng,
                    &[
                        "has", "+", "-", "*", "together", "twice", "half", "more", "than",
                    ],
                )
                .to_owned(),
            });
        }
    }
    let line = format!("Say: {}.", words.join(" "));
    let again = vec![line.clone(); rng.random_range(1..=3)].join("\n");
    (line + "\n", again)
}

/// "Pairs: Tom Anna. Ben 12." as the prompt, and the same pairs in two other orders as what is learnt.
pub(crate) fn pairs<R: Rng>(rng: &mut R) -> (String, String) {
    let group = group(rng);
    let count = rng.random_range(3..=8_usize).min(group.len());
    let mut words = group.to_vec();
    words.shuffle(rng);
    let mut pairs: Vec<String> = (0..count)
        .map(|i| match rng.random_range(0..10) {
            0..=3 => format!("{} {}.", words[i], words[rng.random_range(0..words.len())]),
            4 | 5 => format!("{} {}.", words[i], rng.random_range(2..=99_u32)),
            _ => format!("{} {}.", words[i], words[(i + 1) % words.len()]),
        })
        .collect();
    let mut line = |rng: &mut R| {
        pairs.shuffle(rng);
        format!("Pairs: {}", pairs.join(" "))
    };
    let prompt = line(rng) + "\n";
    let first = line(rng);
    (prompt, first + "\n" + &line(rng))
}

/// Names half of the time, else another group of words that problems are about.
fn group<R: Rng>(rng: &mut R) -> &'static [&'static str] {
    if rng.random_bool(0.5) {
        NAMES
    } else {
        WORD_GROUPS[rng.random_range(0..WORD_GROUPS.len())]
    }
}
