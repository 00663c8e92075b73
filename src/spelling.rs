//! The name that was probably meant by one that is not known. Pure.

/// `did you mean thresholds?`; `None` when nothing known is near.
pub fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    if word.len() > 64 {
        return None;
    }
    let closest = known.iter().map(|k| (distance(word, k), *k)).min()?;
    let near = closest.0 <= 2.max(word.chars().count() / 3);
    near.then(|| format!("did you mean {}?", closest.1))
}

/// Levenshtein: insertions, deletions and replacements from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            let best = replaced.min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (from, to, steps) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("mode", "mode", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(from, to), steps, "{from} -> {to}");
            assert_eq!(distance(to, from), steps, "{to} -> {from}");
        }
    }

    #[test]
    fn only_near_words_are_proposed() {
        let known = ["thresholds", "scale_up", "scale_down", "region"];
        assert_eq!(did_you_mean("treshold", &known).as_deref(), Some("did you mean thresholds?"));
        assert_eq!(did_you_mean("scaleup", &known).as_deref(), Some("did you mean scale_up?"));
        assert_eq!(did_you_mean("frobnicate", &known), None);
    }
}
