//! The paper's own numbers (arXiv 2603.16867): Qwen2.5-7B, in percent unless it says otherwise.

use crate::report::page::Block;

fn table(caption: &str, header: &[&str], rows: &[&[&str]]) -> Block {
    Block::Table {
        caption: caption.to_owned(),
        header: header.iter().map(|cell| (*cell).to_owned()).collect(),
        rows: rows
            .iter()
            .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
            .collect(),
    }
}

/// Table 1.
pub(super) fn adapters() -> Block {
    table(
        "The paper's, Qwen2.5-7B",
        &["", "AIME24", "AIME25", "MATH500", "GPQA", "AMC23"],
        &[
            &["base", "10", "17", "76", "37", "60"],
            &["LoRA, rank 128", "56", "38", "93", "43", "82"],
            &["dense", "61", "54", "95", "47", "89"],
            &["R1-Distill-7B", "55", "40", "92", "49", "89"],
        ],
    )
}

/// Table 8.
pub(super) fn limits() -> Block {
    table(
        "The paper's: MATH500 by hard limit, tokens",
        &["", "1K", "2K", "4K", "6K", "32K"],
        &[
            &["fine-tuned", "34", "57", "73", "83", "95"],
            &["beta 1e-3", "62", "78", "85", "90", "92"],
            &["beta 1e-4", "72", "80", "84", "85", "90"],
        ],
    )
}

/// Table 9.
pub(super) fn votes() -> Block {
    table(
        "The paper's: MATH500 by answers N (greedy 71.0)",
        &["", "1", "2", "4", "6", "8"],
        &[
            &["majority", "69.9", "70.0", "75.1", "76.6", "77.5"],
            &["weighted", "69.9", "72.7", "76.1", "77.5", "78.2"],
        ],
    )
}

/// Tables 10 and 11.
pub(super) fn quantization() -> Block {
    table(
        "The paper's, Qwen2.5-7B: perplexity on WikiText-2, and the average of five benchmarks",
        &["", "perplexity", "average"],
        &[
            &["bf16", "6.85", "45.7"],
            &["W4, min-max", "102.4", "0.0 (naive, with the bf16 adapter)"],
            &["W4, L^p", "9.18", ""],
            &["W4, transforms", "8.48", ""],
            &[
                "W4, both",
                "7.53",
                "39.3 (adapter trained on it, no transforms)",
            ],
            &[
                "W4, both, trained",
                "7.26",
                "41.7 (adapter trained on it, transforms)",
            ],
        ],
    )
}

/// Fig. 3 and the lengths, in words.
pub(super) const SWITCHER: &str = "The paper: on MATH500 accuracy rises smoothly with the share of queries sent to the adapter, from 76 % to 93 %.";
/// Fig. 4 and 5.
pub(super) const LENGTHS: &str =
    "The paper: answers are 2.38 ± 0.07 times shorter on average, up to about 8 times.";
