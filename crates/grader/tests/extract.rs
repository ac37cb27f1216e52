//! Where the final answer stands, and responses that have none.

use edgethink_grader::{How, code_block, extract, is_correct, visible};

#[test]
fn the_final_answer_and_how_it_was_found() {
    let cases = [
        (r"so \boxed{42}.", "42", How::Boxed),
        (r"$\boxed{1}$ then $\boxed{2}$", "2", How::Boxed),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", How::Boxed),
        (r"\boxed{\text{(B)}}", r"\text{(B)}", How::Boxed),
        (r"\boxed 7$", "7", How::Boxed),
        (r"\fbox{7}", "7", How::Boxed),
        (r"**Final answer:** $\boxed{7}$", "7", How::Boxed),
        (r"\boxed{7}, so Answer: yes", "7", How::Boxed),
        ("Final answer: 42", "42", How::FinalAnswer),
        ("**Final answer:** 42", "42", How::FinalAnswer),
        ("**Final Answer**: 42", "42", How::FinalAnswer),
        ("## Final Answer\n\n42", "42", How::FinalAnswer),
        ("**Final answer:**\n42\n", "42", How::FinalAnswer),
        (
            "Final answer: 1\nno,\nFinal answer: 2",
            "2",
            How::FinalAnswer,
        ),
        (
            "Final Answer: The final answer is $5$. I hope it is correct.",
            "5",
            How::FinalAnswer,
        ),
        (
            r"\boxed{1} Wait. **Final answer:** 2",
            "2",
            How::FinalAnswer,
        ),
        ("Final answer: 42<|im_end|>", "42", How::FinalAnswer),
        ("2 + 2 = <<2+2=4>>4\n#### 4", "4", How::Hashes),
        (
            "### Final Answer\n\nThe probability is $\\frac{1}{3}$.",
            r"\frac{1}{3}",
            How::FinalAnswer,
        ),
        ("Answer: the length is 5 cm.", "5 cm", How::Answer),
        (
            "Answer: the length is not 5.",
            "the length is not 5",
            How::Answer,
        ),
        ("#### 1,234", "1,234", How::Hashes),
        ("Answer: 42", "42", How::Answer),
        ("Answer: 1 ... no. Answer: 2", "2", How::Answer),
        ("The answer is 42.", "42", How::Answer),
        ("The answer is 42. It was easy.", "42", How::Answer),
        ("The answer is $3.50, because of tax.", "$3.50", How::Answer),
        ("So the answer is $x = 5$, as shown.", "x = 5", How::Answer),
        ("The correct answer is (B).", "(B)", How::Answer),
        ("The answer is: **D**", "D", How::Answer),
        ("The answers are 1 and 2.", "1 and 2", How::Answer),
        ("42", "42", How::LastLine),
        ("Paris.<|im_end|>", "Paris", How::LastLine),
        (
            "2 + 2 = 4 and so on it goes here\nYes.",
            "Yes",
            How::LastLine,
        ),
        ("B", "B", How::LastLine),
        (
            "So the whole of it comes to $\\frac{1}{2}$ here.",
            r"\frac{1}{2}",
            How::LastFormula,
        ),
        (
            "Altogether they have 12 apples and 38 pears in there.",
            "38",
            How::LastNumber,
        ),
        (
            "It costs them $1,234 in the whole year.",
            "1,234",
            How::LastNumber,
        ),
    ];
    for (response, text, how) in cases {
        let found = extract(response).map(|found| (found.text, found.how));
        assert_eq!(found, Some((text, how)), "{response:?}");
    }
}

#[test]
fn no_answer() {
    for response in [
        "",
        " \n ",
        "<think>",
        // lm-evaluation-harness 3382: a thought that was cut off is no answer.
        "<think>\nThe answer is 42.",
        r"<think>so \boxed{42}",
        "<think>a</think>\n<think>**Final answer:** 42",
        "<think>**Final answer:** 42</think>\n\n",
        "<think>42</think>",
        // Cut off within the answer: 12 may have been 123.
        r"the answer is \boxed{12",
        r"\boxed{1} and then \boxed{\frac{1}{2}",
        "**Final answer:**",
        "Answer: ",
        "####",
    ] {
        assert_eq!(extract(response), None, "{response:?}");
        assert!(!is_correct(response, "42"), "{response:?}");
    }
}

#[test]
fn right_and_wrong_responses() {
    let right = [
        ("<think>\n7\n</think>\n\n**Final answer:** 38", "38"),
        ("<think>no</think>The answer is $\\frac{2}{4}$.", "1/2"),
        ("<think>**Final answer:** 1</think>\\boxed{2}", "2"),
        ("She pays $12 a day.\n#### 12", "12"),
        ("The total is **$1,234.00**", "1234"),
        ("Answer: B", "B"),
        ("The correct answer is option C.", "C"),
        ("The answer is B. Paris is in France.", "B"),
        ("The answer is (B) Paris.", "B"),
        ("The correct answer is d.", "D"),
        ("Paris", "Paris"),
        ("So x equals 5.\n\n$$x = 5$$", "5"),
        ("Final answer: x = 5", "5"),
        ("Final answer: 42 apples", "42"),
        // sglang-jax 1409: the last "Answer:" counts, not the first.
        ("Answer: 3? No, it is more.\nAnswer: 4", "4"),
        // evalscope 903, lm-evaluation-harness 3003: the same answer in the two formats that prompts ask for.
        ("The answer is \\boxed{18}.", "18"),
        ("Janet makes 9 * 2 = $18 every day at the market.", "18"),
    ];
    for (response, want) in right {
        assert!(is_correct(response, want), "{response:?} gives {want:?}");
    }
    let wrong = [
        ("<think>\n38", "38"),
        ("<think>38</think>", "38"),
        ("<think>38</think>**Final answer:** 39", "38"),
        ("**Final answer:** 380", "38"),
        ("The answer is not 38.", "38"),
        ("The answer is 37 or 38.", "38"),
        ("Answer: 3\nAnswer: 4", "3"),
        ("Answer: **D**", "A"),
        ("I considered (A), but it is wrong. Final answer: D.", "A"),
        ("\\boxed{38} is wrong, so \\boxed{39}", "38"),
        ("It is about 10^6", "6"),
        ("x2", "2"),
        ("", ""),
    ];
    for (response, want) in wrong {
        assert!(
            !is_correct(response, want),
            "{response:?} does not give {want:?}"
        );
    }
}

#[test]
fn visible_text_and_code() {
    assert_eq!(visible("<think>a</think>b"), Some("b"));
    assert_eq!(visible("<think>a"), None);
    let response = "<think>\n```python\nx = 0\n```\n</think>\nHere:\n```python\ndef f():\n    return 1\n```\nDone.";
    assert_eq!(code_block(response), Some("def f():\n    return 1\n"));
    assert_eq!(code_block("<think>\n```\nx\n```\n"), None);
}
