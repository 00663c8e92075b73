//! Numbers and decisions in words for the person on call. Pure.

use std::fmt::Write;
use std::time::Duration;

use crate::model::{Action, Condition, Decision, Forecast};
use crate::units::{bytes, count, time as time_of};

/// A value with the digits that matter: shares to the thousandth, latencies and counts whole.
pub fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.3}");
    text.strip_suffix('0').map(str::to_string).unwrap_or(text)
}

/// A share: "24 %".
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// What a plan moves: "3 shards, 1.2 GiB, about 4 min".
pub fn moved(plan: &Forecast) -> String {
    let moved = format!("{}, {}", count(plan.shards, "shard"), bytes(plan.bytes));
    let time = plan.seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match time {
        _ if plan.shards == 0 => moved,
        Some(known) => format!("{moved}, about {}", time_of(known)),
        None => format!("{moved}, for how long is not known before a first move was measured"),
    }
}

/// "cpu_high 0.81 > 0.75, 1 of 2 checks".
pub fn condition(condition: &Condition) -> String {
    let Condition { name, value, line, streak, needed, .. } = condition;
    let streak = format!("{} of {}", streak.min(needed), count(*needed, "check"));
    match value {
        Some(value) => {
            let sign = if value > line {
                '>'
            } else if value < line {
                '<'
            } else {
                '='
            };
            format!("{name} {} {sign} {}, {streak}", number(*value), number(*line))
        }
        None => format!("{name} has no value now (line {}), {streak}", number(*line)),
    }
}

/// At most `most` of the texts, and how many more there are.
pub fn some_of(texts: &[String], most: usize) -> String {
    let shown = texts.iter().take(most).cloned().collect::<Vec<_>>().join("; ");
    match texts.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// A decision in a few lines, for the log and the command line.
pub fn explain(decision: &Decision) -> String {
    let what = match &decision.action {
        Action::Hold => match decision.wanted {
            Some(kind) => format!("hold ({} was wanted)", kind.as_str()),
            None => "hold".into(),
        },
        Action::ScaleUp { nodes, target } => format!("scale_up by {} to {target}", count(*nodes, "node")),
        Action::ScaleDown { node, target } => format!("scale_down to {} by removing {node}", count(*target, "node")),
        Action::Replace { node } => format!("replace {node}"),
        Action::Rebalance {} => "rebalance".into(),
        Action::Adopt { node, .. } => format!("adopt {node}"),
        Action::Drain { node } => format!("drain {node}"),
        Action::Reap { node } => format!("reap {node}"),
    };
    let trigger = decision.trigger.map_or(String::new(), |t| format!(", trigger {}", t.as_str()));
    let mut text = format!("decision {} at {} ({}): {what}{trigger}", decision.id, decision.at, decision.mode.as_str());
    let mut line = |label: &str, body: &str| {
        write!(text, "\n  {label:<12} {body}").expect("writing to a String cannot fail");
    };
    for reason in &decision.because {
        line("because", reason);
    }
    for guard in &decision.guards {
        line("held by", &format!("{}: {}", guard.name.as_str(), guard.detail));
    }
    for seen in &decision.conditions {
        line(if seen.active { "active" } else { "condition" }, &condition(seen));
    }
    line("would change", &decision.would_change);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let numbers =
            [(0.81, "0.81"), (0.9, "0.90"), (0.675, "0.675"), (0.0, "0.00"), (512.4, "512"), (1e6, "1000000")];
        for (value, text) in numbers {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_condition_says_value_line_and_streak() {
        let mut cpu =
            Condition { name: "cpu_high".into(), value: Some(0.81), line: 0.75, streak: 1, needed: 2, active: false };
        assert_eq!(condition(&cpu), "cpu_high 0.81 > 0.75, 1 of 2 checks");
        cpu.value = None;
        assert_eq!(condition(&cpu), "cpu_high has no value now (line 0.75), 1 of 2 checks");
    }
}
