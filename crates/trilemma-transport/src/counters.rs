//! What an endpoint has done since it was opened, as plain numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Lane;

/// Traffic of one lane, all peers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounters {
    /// Frames that were queued for peers.
    pub frames_out: u64,
    /// Their bytes, without framing and encryption.
    pub bytes_out: u64,
    /// Frames that came from peers.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that [`crate::Transport::send`] did not take: no connection, a full queue, too large.
    pub dropped: u64,
}

/// What an endpoint has done since it was opened. Numbers only grow; each is read by itself, so sums may be off by what
/// happens meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// The control lane.
    pub control: LaneCounters,
    /// The log lane.
    pub log: LaneCounters,
    /// The bulk lane.
    pub bulk: LaneCounters,
    /// Datagrams; those that were too large for one count here going out, and as `control` coming in.
    pub datagram: LaneCounters,
    /// Connections with peers that were established.
    pub connects: u64,
    /// Connections that were refused, by this side or the other.
    pub refusals: u64,
    /// Refusals that the driver was not notified of, because it was far behind.
    pub refusals_untold: u64,
    /// Handshakes that were put off because too many were begun.
    pub put_off: u64,
    /// Connections of clients that were accepted.
    pub clients: u64,
    /// Requests of clients.
    pub requests: u64,
    /// Clients that were cut off because they did not read their answers.
    pub clients_cut_off: u64,
}

/// Relaxed everywhere: numbers for people, which order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct LaneMeters {
    frames_out: Counter,
    bytes_out: Counter,
    frames_in: Counter,
    bytes_in: Counter,
    dropped: Counter,
}

impl LaneMeters {
    fn read(&self) -> LaneCounters {
        LaneCounters {
            frames_out: self.frames_out.value(),
            bytes_out: self.bytes_out.value(),
            frames_in: self.frames_in.value(),
            bytes_in: self.bytes_in.value(),
            dropped: self.dropped.value(),
        }
    }
}

/// The live side of [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    lanes: [LaneMeters; 4],
    pub(crate) connects: Counter,
    pub(crate) refusals: Counter,
    pub(crate) refusals_untold: Counter,
    pub(crate) put_off: Counter,
    pub(crate) clients: Counter,
    pub(crate) requests: Counter,
    pub(crate) clients_cut_off: Counter,
}

impl Metrics {
    fn lane(&self, lane: Lane) -> &LaneMeters {
        &self.lanes[lane as usize]
    }

    pub(crate) fn sent(&self, lane: Lane, bytes: usize) {
        let metrics = self.lane(lane);
        metrics.frames_out.add(1);
        metrics.bytes_out.add(bytes as u64);
    }

    pub(crate) fn received(&self, lane: Lane, bytes: usize) {
        let metrics = self.lane(lane);
        metrics.frames_in.add(1);
        metrics.bytes_in.add(bytes as u64);
    }

    pub(crate) fn dropped(&self, lane: Lane) {
        self.lane(lane).dropped.add(1);
    }

    pub(crate) fn read(&self) -> Counters {
        Counters {
            control: self.lane(Lane::Control).read(),
            log: self.lane(Lane::Log).read(),
            bulk: self.lane(Lane::Bulk).read(),
            datagram: self.lane(Lane::Datagram).read(),
            connects: self.connects.value(),
            refusals: self.refusals.value(),
            refusals_untold: self.refusals_untold.value(),
            put_off: self.put_off.value(),
            clients: self.clients.value(),
            requests: self.requests.value(),
            clients_cut_off: self.clients_cut_off.value(),
        }
    }
}
