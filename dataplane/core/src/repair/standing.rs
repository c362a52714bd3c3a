//! How much standing repair a measured loss asks for.

/// Loss below which standing repair is not worth its share of the path: a repeat now and then is.
pub const LOSS_MIN: f64 = 0.000_5;

/// Loss above which an overhead of 17 % gives back too little.
pub const LOSS_MAX: f64 = 0.2;

/// Mean run of lost shards beyond which a window carries too few repair shards.
pub const BURST_MAX: f64 = 7.0;

/// Shares of shards lost, one for each row of [`TABLE`].
const LOSSES: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15];

/// Mean lengths of runs of lost shards, one for each column of [`TABLE`].
const BURSTS: [f64; 5] = [1.0, 2.0, 3.0, 4.0, 6.0];

/// s, W, and the share of source shards that stay lost. Each is the best of its overhead (1 / s); a
/// shorter window is taken where it loses hardly anything. Runs ask for long windows: one of e
/// losses takes e repair shards that cover it.
///
/// Measured with this codec behind a Gilbert-Elliott channel, 2 to 10 million shards each, by
/// `cargo test --release -p shardgate-core --test repair_standing -- --ignored --nocapture`. An
/// entry that would give back less than a third of what is lost is none.
#[rustfmt::skip]
const TABLE: [[Option<(u8, u8, f64)>; BURSTS.len()]; LOSSES.len()] = [
    [Some((32, 64, 3.0e-7)), Some((24, 192, 1.2e-5)), Some((24, 192, 1.2e-4)), Some((24, 192, 2.8e-4)), Some((24, 192, 5.6e-4))],
    [Some((24, 48, 3.1e-6)), Some((20, 160, 1.1e-5)), Some((20, 180, 1.6e-4)), Some((20, 180, 4.2e-4)), Some((20, 180, 1.0e-3))],
    [Some((20, 60, 3.0e-7)), Some((20, 180, 6.8e-5)), Some((20, 180, 5.2e-4)), Some((20, 180, 1.2e-3)), Some((20, 180, 2.4e-3))],
    [Some((20, 80, 2.5e-6)), Some((16, 192, 6.1e-5)), Some((16, 192, 4.9e-4)), Some((15, 180, 1.5e-3)), Some((15, 180, 3.5e-3))],
    [Some((13, 65, 6.0e-6)), Some((13, 169, 2.0e-4)), Some((13, 182, 1.4e-3)), Some((13, 182, 3.5e-3)), Some((13, 182, 6.9e-3))],
    [Some((11, 66, 7.7e-6)), Some((11, 143, 7.0e-4)), Some((11, 154, 2.8e-3)), Some((11, 176, 5.4e-3)), Some((11, 176, 1.0e-2))],
    [Some((9, 72, 1.7e-4)), Some((8, 104, 2.1e-3)), Some((8, 112, 7.0e-3)), Some((8, 128, 1.1e-2)), Some((8, 128, 2.0e-2))],
    [Some((7, 56, 3.8e-4)), Some((7, 84, 6.3e-3)), Some((7, 91, 1.5e-2)), Some((7, 98, 2.2e-2)), Some((7, 98, 3.4e-2))],
    [Some((6, 48, 4.7e-3)), Some((6, 60, 2.1e-2)), Some((6, 72, 3.4e-2)), Some((6, 48, 5.4e-2)), None],
    [Some((6, 12, 8.7e-2)), Some((6, 24, 9.9e-2)), None, None, None],
];

/// Source shards per repair shard and source shards that each covers, for a measured share of
/// lost shards and a mean length of their runs; none if standing repair is not worth what it costs,
/// because hardly anything is lost, because the runs are too long for any window, or because more
/// is lost than such an overhead can give back.
///
/// The overhead is 1 / s: 3 to 5 % up to a loss of 0.5 %, 5 to 7 % at 1 %, 8 % at 2 %, 11 to 13 %
/// at 5 %, and 17 % from 10 % on.
pub fn standing(loss: f64, burst: f64) -> Option<(u8, u8)> {
    measured(loss, burst).map(|(every, window, _)| (every, window))
}

/// The share of source shards that stays lost with [`standing`] repair alone, as it was measured
/// at the nearest loss and run length of the table.
pub fn standing_residual(loss: f64, burst: f64) -> Option<f64> {
    measured(loss, burst).map(|(.., residual)| residual)
}

/// s and W at a row and a column of the table, both from 0.
pub fn entry(row: usize, column: usize) -> Option<(u8, u8)> {
    let (every, window, _) = (*TABLE.get(row)?.get(column)?)?;
    Some((every, window))
}

/// The row of the table whose loss is nearest.
pub fn loss_row(loss: f64) -> usize {
    nearest(&LOSSES, loss)
}

/// The column of the table whose run length is nearest.
pub fn burst_column(burst: f64) -> usize {
    nearest(&BURSTS, burst)
}

/// The run length of a column; beyond the table that of the last.
pub fn burst_at(column: usize) -> f64 {
    BURSTS.get(column).or(BURSTS.last()).copied().unwrap_or(1.0)
}

fn measured(loss: f64, burst: f64) -> Option<(u8, u8, f64)> {
    if !(LOSS_MIN..=LOSS_MAX).contains(&loss) || !(0.0..=BURST_MAX).contains(&burst) {
        return None;
    }
    *TABLE.get(loss_row(loss))?.get(burst_column(burst))?
}

/// The index of the value that is nearest as a ratio; values rise.
fn nearest(values: &[f64], value: f64) -> usize {
    let pairs = values.iter().zip(values.iter().skip(1));
    pairs
        .take_while(|&(low, high)| value * value > low * high)
        .count()
}

#[cfg(test)]
mod tests {
    use super::super::{OPEN_MAX, WINDOW_MAX};
    use super::*;

    #[test]
    fn overheads_stay_where_they_are_promised() {
        for (loss, burst, overhead_max) in [
            (0.01, 1.0, 0.05),
            (0.01, 3.0, 0.065),
            (0.01, 4.0, 0.07),
            (0.05, 1.0, 0.12),
            (0.005, 2.0, 0.05),
            (0.02, 1.0, 0.08),
            (0.02, 4.0, 0.08),
            (0.1, 1.0, 0.17),
            (0.18, 2.0, 0.17),
        ] {
            let (every, _) = standing(loss, burst).expect("worth it");
            assert!(1.0 / f64::from(every) <= overhead_max, "{loss} {burst}");
        }
    }

    #[test]
    fn entries_are_plans_that_an_encoder_keeps_to() {
        for (row, loss) in TABLE.iter().zip(LOSSES) {
            let mut before = 0.0;
            for &(every, window, residual) in row.iter().flatten() {
                assert_eq!(window % every, 0);
                assert!(usize::from(window) <= WINDOW_MAX);
                assert!((1..=OPEN_MAX).contains(&usize::from(window / every)));
                assert!(residual > before && residual < loss * 2.0 / 3.0);
                before = residual;
            }
        }
    }

    #[test]
    fn the_nearest_entry_counts() {
        assert_eq!(standing(0.012, 1.2), standing(0.01, 1.0));
        assert_eq!(standing(0.016, 1.6), standing(0.02, 2.0));
        assert_eq!(standing(0.19, 1.0), standing(0.15, 1.0));
        assert_eq!(
            standing(0.01, 0.0),
            standing(0.01, 1.0),
            "nothing measured yet"
        );
        for (loss, burst) in [
            (0.0, 1.0),
            (0.000_4, 1.0),
            (0.01, 20.0),
            (0.3, 1.0),
            (f64::NAN, 1.0),
            (0.01, f64::NAN),
            (-1.0, 1.0),
        ] {
            assert_eq!(standing(loss, burst), None, "{loss} {burst}");
        }
    }
}
