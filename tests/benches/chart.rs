//! The ratios as bars: shorter is faster, and the line at 1 is the kernel.

use std::path::Path;

use lazaret_tests::Result;
use plotters::prelude::*;

use crate::contender::Contender;
use crate::series::Series;
use crate::workload::State;

const WIDTH: u32 = 960;
/// Pixels of a row.
const ROW: u32 = 26;
/// Ratios beyond are cut off.
const MOST: f64 = 3.0;

const COLOURS: [(State, RGBColor); 3] = [
    (State::Fresh, RGBColor(31, 119, 180)),
    (State::Second, RGBColor(44, 160, 44)),
    (State::Dropped, RGBColor(150, 150, 150)),
];

/// Draws what was measured as SVG.
pub(crate) fn draw(series: &[Series], path: &Path) -> Result {
    let drawn = draw_rows(series, path);
    drawn.map_err(|error| format!("{}: {error}", path.display()).into())
}

fn draw_rows(series: &[Series], path: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let rows: Vec<_> =
        series.iter().filter_map(|one| Some((one, one.ratio(Contender::Lazaret, Contender::Kernel)?))).collect();
    let count = u32::try_from(rows.len())?;
    let root = SVGBackend::new(path, (WIDTH, count * ROW + 110)).into_drawing_area();
    root.fill(&WHITE)?;
    let labels: Vec<_> = rows.iter().map(|(one, _)| format!("{}, {}", one.name, one.state.name())).collect();
    let mut chart = ChartBuilder::on(&root)
        .caption("Lazaret's time ÷ the kernel's loop mount", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(330)
        .build_cartesian_2d(0.0..MOST, (0..count).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc("ratio, median with least and most; the line at 1 is the kernel")
        .y_labels(rows.len())
        .y_label_formatter(&|position| match position {
            SegmentValue::CenterOf(row) => labels.iter().rev().nth(*row as usize).cloned().unwrap_or_default(),
            _ => String::new(),
        })
        .draw()?;
    for (number, (one, ratio)) in rows.iter().enumerate() {
        let row = count - 1 - u32::try_from(number)?;
        let colour = COLOURS.iter().find(|(state, _)| *state == one.state).map_or(BLACK, |(_, colour)| *colour);
        let mut bar = Rectangle::new(
            [(0.0, SegmentValue::Exact(row)), (ratio.median.min(MOST), SegmentValue::Exact(row + 1))],
            colour.mix(0.7).filled(),
        );
        bar.set_margin(4, 4, 0, 0);
        chart.draw_series([bar])?;
        let ends =
            [(ratio.least.min(MOST), SegmentValue::CenterOf(row)), (ratio.most.min(MOST), SegmentValue::CenterOf(row))];
        chart.draw_series(LineSeries::new(ends, BLACK.stroke_width(1)))?;
    }
    let kernel = [(1.0, SegmentValue::Exact(0)), (1.0, SegmentValue::Exact(count))];
    chart.draw_series(LineSeries::new(kernel, RED.stroke_width(1)))?;
    root.present()?;
    Ok(())
}
