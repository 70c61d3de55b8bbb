//! `shardmill mappings shadow`: how the version that runs beside a mapping compares.

use serde_json::Value;

use crate::cli::print;

fn array<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or(0)
}

fn text(of: &Value, key: &str) -> String {
    print::in_line(&print::cell(&of[key]))
}

pub(super) fn show(report: &Value) -> anyhow::Result<()> {
    print::line(format!(
        "mapping {}: {} beside it, on {} % of the batches, since {}",
        text(report, "mapping"),
        text(report, "function"),
        number(report, "percent"),
        print::time(&report["since"]),
    ))?;
    let problem = &report["problem"];
    if !problem.is_null() {
        let (at, message) = (print::time(&problem["at"]), text(problem, "message"));
        print::line(format!("it does not run since {at}: {message}"))?;
    }
    print::line("\nbatches")?;
    for key in [
        "shown",
        "waiting",
        "compared",
        "equal",
        "different",
        "uncertain",
        "failed_only_in_shadow",
        "failed_only_in_primary",
    ] {
        let label = key.replace('_', " ");
        print::line(format!("  {label:<24} {}", number(report, key)))?;
    }
    for (cause, batches) in report["dropped"].as_object().into_iter().flatten() {
        if batches != 0 {
            let label = format!("dropped: {}", cause.replace('_', " "));
            print::line(format!("  {label:<24} {batches}"))?;
        }
    }
    print::line("")?;
    print::rows(&sides(report), "")?;
    if let (Some(p50), Some(p99)) = (
        report["fuel_ratio_p50"].as_f64(),
        report["fuel_ratio_p99"].as_f64(),
    ) {
        print::line(format!(
            "fuel for each unit of the primary's: median {p50:.3}, p99 {p99:.3}"
        ))?;
    }
    versions(report)?;
    differences(report)
}

fn sides(report: &Value) -> comfy_table::Table {
    let mut table = print::table(&["", "primary", "shadow"]);
    for key in [
        "failed",
        "fuel",
        "fuel_per_record",
        "duration_micros",
        "memory_max_bytes",
    ] {
        let of = |side: &str| print::cell(&report[side][key]);
        table.add_row([key.replace('_', " "), of("primary"), of("shadow")]);
    }
    table
}

fn versions(report: &Value) -> anyhow::Result<()> {
    if array(report, "versions").len() < 2 {
        return Ok(());
    }
    let mut table = print::table(&["primary", "shadow", "compared", "different", "uncertain"]);
    for pair in array(report, "versions") {
        let named = |side: &str| {
            let digest = text(pair, &format!("{side}_digest"));
            let digest: String = digest.chars().take(12).collect();
            format!("{} ({digest})", text(pair, side))
        };
        let count = |key: &str| number(pair, key).to_string();
        table.add_row([
            named("primary"),
            named("shadow"),
            count("compared"),
            count("different"),
            count("uncertain"),
        ]);
    }
    print::line("")?;
    print::rows(&table, "")
}

fn differences(report: &Value) -> anyhow::Result<()> {
    let kinds = report["kinds"].as_object().into_iter().flatten();
    let kinds: Vec<String> = kinds
        .filter(|(_, batches)| **batches != 0)
        .map(|(kind, batches)| format!("{kind} in {batches}"))
        .collect();
    if kinds.is_empty() {
        return print::line("\nno differences");
    }
    print::line(format!("\ndifferences: {}", kinds.join(", ")))?;
    for difference in array(report, "differences") {
        let uncertain = match difference["uncertain"].as_bool() {
            Some(true) => " (uncertain)",
            _ => "",
        };
        print::line(format!(
            "  {}{uncertain} {} {} key {}: {} → {}",
            text(difference, "what"),
            text(difference, "shard"),
            text(difference, "sequence_number"),
            text(difference, "partition_key"),
            text(difference, "primary"),
            text(difference, "shadow"),
        ))?;
    }
    Ok(())
}
