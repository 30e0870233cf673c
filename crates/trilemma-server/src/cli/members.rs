//! `members`: who belongs to the cluster and who works, as one node sees it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value as Json, json};
use trilemma::{MemberOverview, MembershipOverview};

use super::Global;
use super::client::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Form};

/// Shows who belongs to the cluster and who of them works, as the node that is asked sees it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trilemma members
  trilemma members --server 3 --output json

The node that is asked is alive for itself. Others are `alive`; `suspect` if they did not answer somebody; `dead` if they
did not refute that in time. A node that was dead comes back by itself. Ask two nodes before you believe that a third is
dead: the one that was asked may be the one that is cut off.")]
pub(crate) struct Members {}

impl Members {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let Some(overview) = connect(global).await?.members().await? else {
            return Err(Failure::new(
                Exit::Refused,
                "the node does not look after members",
                "add a section [membership] to the configuration of every node, and restart them one after the other",
            ));
        };
        if global.output == Form::Json {
            output::line(members_json(&overview).to_string());
            return Ok(Exit::Ok);
        }
        output::table(&rows(&overview, SystemTime::now()));
        output::line("");
        let counts = &overview.counts;
        output::line(format!(
            "{} suspected, {} of them refuted it, {} died; accused by others {} times; health {} of 8, 0 is best",
            counts.suspected, counts.refuted, counts.died, counts.accused, overview.health
        ));
        output::line(format!(
            "{} messages sent, {} B; {} received, {} B",
            counts.sent, counts.sent_bytes, counts.received, counts.received_bytes
        ));
        for refused in &overview.refused {
            let from = refused
                .from
                .map_or(String::new(), |from| format!(", last by node {from}"));
            output::line(format!(
                "{} statements refused: {}{from}",
                refused.count, refused.reason
            ));
        }
        Ok(Exit::Ok)
    }
}

fn rows(overview: &MembershipOverview, now: SystemTime) -> Vec<Vec<String>> {
    let head = [
        "MEMBER",
        "STATE",
        "SINCE",
        "INCARNATION",
        "ZONE",
        "ROUND TRIP",
        "ADDRESS",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for member in &overview.members {
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let trip = member.round_trip_micros.map_or(String::new(), |micros| {
            format!("{:.1} ms", Duration::from_micros(micros).as_secs_f64() * 1000.0)
        });
        rows.push(vec![
            member.node.to_string(),
            member.state.name().to_owned(),
            or_dash(since(member, now)),
            format!("{}.{}", member.epoch, member.counter),
            or_dash(member.zone.clone()),
            or_dash(trip),
            or_dash(member.address.clone()),
        ]);
    }
    rows
}

/// How long ago the state changed, in whole units.
fn since(member: &MemberOverview, now: SystemTime) -> String {
    let Some(since) = member.since else {
        return String::new();
    };
    let then = UNIX_EPOCH + Duration::from_millis(since.0);
    // The node's clock may be ahead of this one's.
    let seconds = now.duration_since(then).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// The members as JSON.
pub(crate) fn members_json(overview: &MembershipOverview) -> Json {
    let member = |member: &MemberOverview| {
        json!({
            "node": member.node.0,
            "state": member.state.name(),
            "since_ms": member.since.map(|since| since.0),
            "epoch": member.epoch,
            "counter": member.counter,
            "zone": member.zone,
            "address": member.address,
            "observer": member.observer,
            "round_trip_micros": member.round_trip_micros,
        })
    };
    let refused = overview
        .refused
        .iter()
        .map(|refused| (refused.reason.clone(), refused.count.into()));
    let counts = &overview.counts;
    json!({
        "members": overview.members.iter().map(member).collect::<Vec<_>>(),
        "health": overview.health,
        "pending_updates": overview.pending_updates,
        "suspected": counts.suspected,
        "refuted": counts.refuted,
        "died": counts.died,
        "accused": counts.accused,
        "sent": counts.sent,
        "sent_bytes": counts.sent_bytes,
        "received": counts.received,
        "received_bytes": counts.received_bytes,
        "refused": refused.collect::<serde_json::Map<String, Json>>(),
    })
}

#[cfg(test)]
mod tests {
    use trilemma::{MemberState, NodeId, WallTime};

    use super::*;

    fn member(since: Option<u64>) -> MemberOverview {
        MemberOverview {
            node: NodeId(2),
            state: MemberState::Suspect,
            epoch: 3,
            counter: 1,
            address: "10.0.0.2:7400".into(),
            zone: String::new(),
            observer: false,
            round_trip_micros: Some(1_240),
            since: since.map(WallTime),
        }
    }

    #[test]
    fn a_row_says_state_time_run_and_distance() {
        let overview = MembershipOverview {
            members: vec![member(Some(1_000))],
            ..MembershipOverview::default()
        };
        let rows = rows(&overview, UNIX_EPOCH + Duration::from_secs(200));
        assert_eq!(
            rows[1],
            ["2", "suspect", "3 min", "3.1", "-", "1.2 ms", "10.0.0.2:7400"]
        );
        let json = members_json(&overview);
        assert_eq!(json["members"][0]["state"], "suspect");
        assert_eq!(json["members"][0]["since_ms"], 1_000);
    }

    #[test]
    fn times_have_one_unit_and_clocks_may_differ() {
        for (seconds, shown) in [
            (0, "0 s"),
            (119, "119 s"),
            (7_199, "119 min"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            let now = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(since(&member(Some(0)), now), shown);
        }
        assert_eq!(since(&member(Some(5_000)), UNIX_EPOCH), "0 s");
        assert_eq!(since(&member(None), UNIX_EPOCH), "");
    }
}
