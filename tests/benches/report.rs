//! What was measured, as a table, as JSON and as a chart.

use std::fmt::Write as _;
use std::path::Path;

use lazaret_tests::Result;
use serde_json::{Map, Value, json};

use crate::chart;
use crate::count::Count;
use crate::profile::Profile;
use crate::scale::Figure;
use crate::series::Series;

/// Everything of one run.
pub(crate) struct Report {
    host: Value,
    series: Vec<Series>,
    figures: Vec<Figure>,
    counts: Vec<Count>,
    profiles: Vec<Profile>,
}

impl Report {
    pub(crate) fn new(host: Value) -> Self {
        Self { host, series: vec![], figures: vec![], counts: vec![], profiles: vec![] }
    }

    pub(crate) fn add(&mut self, series: Series) {
        self.series.push(series);
    }

    pub(crate) fn add_figure(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub(crate) fn add_counts(&mut self, counts: Vec<Count>) {
        self.counts.extend(counts);
    }

    pub(crate) fn add_profile(&mut self, profiles: Vec<Profile>) {
        self.profiles.extend(profiles);
    }

    /// In Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("\nmeasured on {}\n", self.host);
        let mut section = |head: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                let columns = head.matches('|').count() - 1;
                let _ = write!(text, "\n{head}\n|{}\n{}\n", "---|".repeat(columns), lines.join("\n"));
            }
        };
        section(
            "| workload | state | ÷ kernel | bar | fuse2fs ÷ | bar |",
            self.series.iter().map(Series::line).collect(),
        );
        section("| figure | value | bar |", self.figures.iter().map(Figure::line).collect());
        section("| instructions for a | now | committed | |", self.counts.iter().map(Count::line).collect());
        section("| workload | the worker's time |", self.profiles.iter().map(Profile::line).collect());
        text
    }

    /// `bench.json`, `bench.md`, `bench.svg` and `counts.json` in this directory.
    pub(crate) fn write(&self, directory: &Path) -> Result {
        let counts: Map<String, Value> = self.counts.iter().map(Count::json).collect();
        let whole = json!({
            "schema": "lazaret.bench/1",
            "host": self.host,
            "workloads": self.series.iter().map(Series::json).collect::<Vec<_>>(),
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
            "instructions": counts,
            "profiles": self.profiles.iter().map(Profile::json).collect::<Vec<_>>(),
        });
        std::fs::write(directory.join("bench.json"), format!("{whole:#}\n"))?;
        std::fs::write(directory.join("bench.md"), self.table())?;
        if !counts.is_empty() {
            std::fs::write(directory.join("counts.json"), format!("{:#}\n", Value::Object(counts)))?;
        }
        if !self.series.is_empty() {
            chart::draw(&self.series, &directory.join("bench.svg"))?;
        }
        println!("\nwritten to {}", directory.display());
        Ok(())
    }
}
