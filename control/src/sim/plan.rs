//! `shardgate sim plan`: decisions of a gateway, made again.

mod read;
mod table;

use std::collections::HashMap;

use serde::Serialize;
use shardgate_core::plan::Plan;

use crate::cli::SimPlanArgs;
use crate::decisions::{PlanJson, Record, Wall};
use crate::output::{Failure, print, print_json};

/// Carries out the command.
pub(super) fn plan(args: &SimPlanArgs) -> Result<(), Failure> {
    let shown = args.replay.display();
    let records = read::load(&args.replay)
        .map_err(|reason| Failure::Wrong(format!("--replay: {shown}: {reason}")))?;
    let report = Report::new(&records);
    if args.json {
        print_json(&report)?;
    } else {
        print(&table::table(&report))?;
    }
    let wrong = report.different + report.unconnected;
    if wrong > 0 {
        return Err(Failure::Failed(format!(
            "{shown}: {wrong} of {} decisions cannot have been made like that: the file was changed, or \
             another version of the program wrote it",
            report.decisions.len()
        )));
    }
    Ok(())
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// The same inputs give the same plan.
    Same,
    /// They give another.
    Different,
    /// They do, but from a plan that the decision before did not lead to.
    Unconnected,
}

/// A decision, and what came of it.
#[derive(Debug, Serialize)]
struct Judged<'a> {
    /// Line of the file, or place in the answer, from 1.
    line: usize,
    time: Wall,
    peer: &'a str,
    stream: u8,
    path: u8,
    number: u64,
    from: PlanJson,
    to: PlanJson,
    /// What the inputs lead to.
    replayed: PlanJson,
    verdict: Verdict,
    #[serde(skip)]
    record: &'a Record,
}

/// All of them.
#[derive(Debug, Serialize)]
struct Report<'a> {
    decisions: Vec<Judged<'a>>,
    /// Streams that they are of.
    streams: usize,
    /// Those with [`Verdict::Different`].
    different: usize,
    /// Those with [`Verdict::Unconnected`].
    unconnected: usize,
    /// Numbers that are left out between two decisions of a stream.
    missing: u64,
}

impl<'a> Report<'a> {
    fn new(records: &'a [(usize, Record)]) -> Self {
        let mut last: HashMap<(&str, u8), (u64, Plan)> = HashMap::new();
        let mut report = Self {
            decisions: Vec::with_capacity(records.len()),
            streams: 0,
            different: 0,
            unconnected: 0,
            missing: 0,
        };
        for (line, record) in records {
            let decision = &record.decision;
            let replayed = decision.replay();
            let before = last.insert(
                (&record.peer, record.stream),
                (record.number, decision.plan),
            );
            // A lower number is a gateway that has started anew.
            let skipped =
                before.and_then(|(number, _)| record.number.checked_sub(number)?.checked_sub(1));
            report.missing = report.missing.saturating_add(skipped.unwrap_or_default());
            let follows = |plan: Plan| skipped != Some(0) || plan == decision.before.plan;
            let verdict = if replayed != decision.plan {
                report.different += 1;
                Verdict::Different
            } else if before.is_some_and(|(_, plan)| !follows(plan)) {
                report.unconnected += 1;
                Verdict::Unconnected
            } else {
                Verdict::Same
            };
            report.decisions.push(Judged {
                line: *line,
                time: record.time,
                peer: &record.peer,
                stream: record.stream,
                path: record.path,
                number: record.number,
                from: PlanJson(decision.before.plan),
                to: PlanJson(decision.plan),
                replayed: PlanJson(replayed),
                verdict,
                record,
            });
        }
        report.streams = last.len();
        report
    }
}

#[cfg(test)]
mod tests;
