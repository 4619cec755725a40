//! The times of one workload in one state, and the ratios that they make.

use std::time::Duration;

use serde_json::{Value, json};

use crate::contender::Contender;
use crate::workload::{State, Workload};

/// Once a run of fuse2fs takes longer, it is not repeated: it would be most of the time of the whole.
const FUSE2FS_PATIENCE: Duration = Duration::from_secs(10);

/// Times of the contenders, by round.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    /// The most that the ratio to the kernel may be, and the least that fuse2fs' to us may be.
    bars: (Option<f64>, Option<f64>),
    times: Vec<(Contender, usize, Duration)>,
}

/// A median with its least and most, and of how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

impl Series {
    pub(crate) fn new(workload: &Workload, state: State) -> Self {
        let bars = match state {
            State::Fresh => (workload.bar.fresh, workload.bar.fuse2fs),
            State::Second => (workload.bar.second, None),
            State::Dropped => (None, None),
        };
        Self { name: workload.name, state, bars, times: vec![] }
    }

    pub(crate) fn push(&mut self, contender: Contender, round: usize, time: Duration) {
        self.times.push((contender, round, time));
    }

    pub(crate) fn fuse2fs_may_run_again(&self) -> bool {
        !self.times.iter().any(|(who, _, time)| *who == Contender::Fuse2fs && *time > FUSE2FS_PATIENCE)
    }

    /// Seconds of one contender.
    pub(crate) fn seconds(&self, contender: Contender) -> Option<Spread> {
        Spread::of(
            self.times.iter().filter(|(who, ..)| *who == contender).map(|(.., time)| time.as_secs_f64()).collect(),
        )
    }

    /// The ratio of two contenders' times, each pair of one round.
    pub(crate) fn ratio(&self, above: Contender, below: Contender) -> Option<Spread> {
        let of = |wanted: Contender, round: usize| {
            self.times.iter().find(|(who, at, _)| *who == wanted && *at == round).map(|(.., time)| time.as_secs_f64())
        };
        let rounds = self.times.iter().map(|(_, round, _)| round + 1).max().unwrap_or(0);
        Spread::of((0..rounds).filter_map(|round| Some(of(above, round)? / of(below, round)?)).collect())
    }

    /// Whether each bar is held: against the kernel, against fuse2fs. None where there is no bar.
    pub(crate) fn verdicts(&self) -> (Option<bool>, Option<bool>) {
        let ours = self.ratio(Contender::Lazaret, Contender::Kernel);
        let theirs = self.ratio(Contender::Fuse2fs, Contender::Lazaret);
        (
            self.bars.0.map(|bar| ours.is_some_and(|ratio| ratio.median <= bar)),
            self.bars.1.map(|bar| theirs.is_some_and(|ratio| ratio.median >= bar)),
        )
    }

    /// A row of the table.
    pub(crate) fn line(&self) -> String {
        let (kernel, fuse2fs) = self.verdicts();
        format!(
            "| {} | {} | {} | {} | {} | {} |",
            self.name,
            self.state.name(),
            shown(self.ratio(Contender::Lazaret, Contender::Kernel)),
            judged(self.bars.0, "≤", kernel),
            shown(self.ratio(Contender::Fuse2fs, Contender::Lazaret)),
            judged(self.bars.1, "≥", fuse2fs),
        )
    }

    pub(crate) fn json(&self) -> Value {
        let seconds = Contender::ALL.map(|who| (who.name().to_owned(), spread(self.seconds(who))));
        json!({
            "workload": self.name,
            "state": self.state.name(),
            "seconds": serde_json::Map::from_iter(seconds),
            "ratio_to_kernel": spread(self.ratio(Contender::Lazaret, Contender::Kernel)),
            "ratio_of_fuse2fs": spread(self.ratio(Contender::Fuse2fs, Contender::Lazaret)),
            "bar": self.bars.0,
            "bar_of_fuse2fs": self.bars.1,
            "held": self.verdicts().0,
            "held_of_fuse2fs": self.verdicts().1,
        })
    }
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, least, most, count: values.len() })
    }
}

/// As JSON; null where nothing was measured.
pub(crate) fn spread(spread: Option<Spread>) -> Value {
    spread.map_or(
        Value::Null,
        |Spread { median, least, most, count }| json!({ "median": median, "min": least, "max": most, "count": count }),
    )
}

/// As a cell of the table.
pub(crate) fn shown(spread: Option<Spread>) -> String {
    spread.map_or("–".into(), |Spread { median, least, most, count }| {
        format!("**{median:.2}** ({least:.2}–{most:.2}, {count}×)")
    })
}

/// A bar, and whether it is held.
pub(crate) fn judged(bar: Option<f64>, sign: &str, held: Option<bool>) -> String {
    match (bar, held) {
        (Some(bar), Some(true)) => format!("{sign} {bar}: held"),
        (Some(bar), _) => format!("{sign} {bar}: **missed**"),
        (None, _) => String::new(),
    }
}
