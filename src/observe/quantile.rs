//! Quantiles of histograms, as Prometheus' `histogram_quantile` estimates them. Pure.

/// The value below which a share `q` (0..1) of the observations lies: linear within the bucket that it falls into, from
/// 0 in the first; in the last one, which has no end, the bound below it.
///
/// `buckets` are `(upper bound, count up to it)`, ascending, the last one infinite. `None` without observations or
/// without a finite bound. After `bucketQuantile` of <https://github.com/prometheus/prometheus>, `promql/quantile.go`.
pub(super) fn quantile(q: f64, buckets: &[(f64, f64)]) -> Option<f64> {
    let (&(last_bound, all), finite) = buckets.split_last()?;
    if finite.is_empty() || last_bound != f64::INFINITY || all <= 0.0 {
        return None;
    }
    let rank = q * all;
    let Some(at) = finite.iter().position(|(_, count)| *count >= rank) else {
        return finite.last().map(|(bound, _)| *bound);
    };
    let (end, count) = finite[at];
    if at == 0 && end <= 0.0 {
        return Some(end);
    }
    let (start, below) = if at == 0 { (0.0, 0.0) } else { finite[at - 1] };
    let share = if count > below { (rank - below) / (count - below) } else { 1.0 };
    Some(start + (end - start) * share)
}

/// Counts that never fall from one bound to the next; sums over series with different bounds may.
pub(super) fn rising(buckets: &mut [(f64, f64)]) {
    let mut highest = 0.0;
    for (_, count) in buckets {
        highest = count.max(highest);
        *count = highest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f64 = f64::INFINITY;

    #[test]
    fn as_prometheus_estimates() {
        let usual = [(1.0, 10.0), (2.0, 30.0), (4.0, 40.0), (INF, 50.0)];
        type Case<'c> = (&'c str, f64, &'c [(f64, f64)], Option<f64>);
        let cases: [Case<'_>; 9] = [
            ("within the first, from 0", 0.1, &usual, Some(0.5)),
            ("within the second", 0.5, &usual, Some(1.75)),
            ("on a bound", 0.6, &usual, Some(2.0)),
            ("beyond the last bound", 0.95, &usual, Some(4.0)),
            ("a negative first bound", 0.1, &[(-1.0, 5.0), (INF, 5.0)], Some(-1.0)),
            ("no observations", 0.5, &[(1.0, 0.0), (INF, 0.0)], None),
            ("only +Inf", 0.5, &[(INF, 5.0)], None),
            ("no +Inf", 0.5, &[(1.0, 5.0), (2.0, 5.0)], None),
            ("no buckets", 0.5, &[], None),
        ];
        for (name, q, buckets, expected) in cases {
            assert_eq!(quantile(q, buckets), expected, "{name}");
        }
    }

    #[test]
    fn counts_are_made_to_rise() {
        let mut buckets = [(1.0, 3.0), (2.0, 2.0), (INF, 5.0)];
        rising(&mut buckets);
        assert_eq!(buckets, [(1.0, 3.0), (2.0, 3.0), (INF, 5.0)]);
    }
}
