//! The scripts that both kernels play. Each test is a behaviour of Linux that the server or the simulation relies on.

use std::time::Duration;

use disrust::kernel::Entrance::Unix;
use disrust::kernel::Shots::{Many, One};

use super::Do::{self, *};
use super::{conforms, conforms_by};

/// One connection, accepted, with a multishot receive.
const CONNECTED: [Do; 5] = [Accept, PeerConnects, Settle, Receive(0, Many), Settle];

fn conforms_when_connected(script: &[Do]) {
    conforms(&[&CONNECTED, script].concat());
}

#[test]
fn accepting_goes_on_until_it_is_cancelled_and_leaves_the_queue() {
    conforms(&[
        Accept,
        Settle,
        PeerConnects,
        PeerConnects,
        Settle,
        PeerConnects,
        Settle,
        CancelAccept,
        Settle,
        PeerConnects,
        Settle,
        AcceptQueued,
        AcceptQueued,
        CloseListener,
        PeerConnects,
    ]);
    // Nothing to cancel.
    conforms(&[CancelAccept, Settle, PeerConnects, AcceptQueued]);
}

#[test]
fn whoever_is_queued_when_the_listener_closes_is_reset() {
    conforms(&[PeerConnects, PeerWrites(0, 10), CloseListener, PeerReads(0)]);
}

#[test]
fn from_a_shared_listener_one_connection_is_accepted_at_a_time() {
    conforms_by(
        Unix,
        &[Accept, Settle, PeerConnects, PeerConnects, Settle, Accept, Settle, Accept, Settle, CancelAccept, Settle],
    );
}

#[test]
fn a_shared_listener_that_is_being_emptied_takes_nobody_in() {
    conforms_by(
        Unix,
        &[
            Accept,
            PeerConnects,
            Settle,
            PeerConnects,
            PeerConnects,
            AcceptQueued,
            PeerConnects,
            AcceptQueued,
            AcceptQueued,
            CloseListener,
        ],
    );
    // What an accept that is under way says then (EINVAL), the kernel says when it has tried many times: not in a moment.
}

#[test]
fn what_a_peer_at_the_path_has_not_read_is_seen_until_it_has() {
    conforms_by(
        Unix,
        &[
            Accept,
            PeerConnects,
            Settle,
            Receive(0, Many),
            PeerWrites(0, 10),
            Settle,
            LookAt(0),
            Send(0, 100),
            Settle,
            LookAt(0),
            PeerReads(0),
            LookAt(0),
            PeerFinishes(0),
            Settle,
            Send(0, 5),
            Settle,
            HalfClose(0),
            LookAt(0),
            PeerReads(0),
            LookAt(0),
            Close(0),
            PeerReads(0),
        ],
    );
}

#[test]
fn a_multishot_receive_brings_everything_and_then_the_end() {
    conforms_when_connected(&[
        PeerWrites(0, 10),
        Settle,
        PeerWrites(0, 1),
        PeerWrites(0, 2000),
        Settle,
        PeerFinishes(0),
        Settle,
        Send(0, 100),
        Settle,
        PeerReads(0),
        Close(0),
        PeerReads(0),
    ]);
    conforms_when_connected(&[PeerWrites(0, 100), PeerFinishes(0), Settle, Close(0), PeerReads(0)]);
}

#[test]
fn more_operations_than_the_submission_queue_holds_are_all_carried_out() {
    conforms(&[
        Accept,
        PeerConnects,
        PeerConnects,
        PeerConnects,
        Settle,
        Receive(0, Many),
        Receive(1, Many),
        Receive(2, Many),
        Send(0, 10),
        Send(1, 20),
        Send(2, 30),
        AwaitAlarm,
        PeerWrites(1, 5),
        Settle,
        PeerReads(2),
    ]);
}

#[test]
fn a_one_shot_receive_brings_one_buffer() {
    conforms(&[
        Accept,
        PeerConnects,
        Settle,
        PeerWrites(0, 1000),
        Receive(0, One),
        Settle,
        Receive(0, One),
        Settle,
        Receive(0, Many),
        Settle,
        PeerFinishes(0),
        Settle,
        Receive(0, One),
        Settle,
    ]);
}

#[test]
fn without_buffers_a_receive_ends_and_loses_nothing() {
    conforms_when_connected(&[
        KeepBuffers(true),
        PeerWrites(0, 3000),
        Settle,
        Receive(0, Many),
        Settle,
        KeepBuffers(false),
        Receive(0, Many),
        Settle,
        PeerFinishes(0),
        Settle,
    ]);
    // Nothing to receive, but no buffer either.
    conforms_when_connected(&[
        KeepBuffers(true),
        PeerWrites(0, 1024),
        Settle,
        CancelReceive(0),
        Settle,
        Receive(0, Many),
        Settle,
        Receive(0, One),
        Settle,
        KeepBuffers(false),
        Receive(0, Many),
        Settle,
        PeerWrites(0, 5),
        Settle,
    ]);
}

#[test]
fn a_cancelled_receive_ends_and_can_be_armed_again() {
    conforms_when_connected(&[
        PeerWrites(0, 10),
        Settle,
        CancelReceive(0),
        Settle,
        PeerWrites(0, 20),
        Settle,
        Receive(0, Many),
        Settle,
        CancelReceive(0),
        Settle,
        CancelReceive(0),
        Settle,
    ]);
}

#[test]
fn a_reset_fails_the_receive_once() {
    conforms_when_connected(&[PeerResets(0), Settle, Receive(0, Many), Settle, Send(0, 10), Settle, Close(0)]);
    conforms_when_connected(&[PeerResets(0), Settle, Abort(0), Settle, Close(0)]);
    conforms_when_connected(&[PeerWrites(0, 10), PeerResets(0), Settle, Send(0, 10), Settle]);
}

#[test]
fn a_reset_fails_the_send_if_that_comes_first() {
    conforms_when_connected(&[
        CancelReceive(0),
        Settle,
        PeerResets(0),
        Settle,
        Send(0, 10),
        Settle,
        Receive(0, Many),
        Settle,
        Send(0, 10),
        Settle,
    ]);
}

#[test]
fn sending_to_a_peer_that_has_closed_breaks_the_connection() {
    conforms_when_connected(&[
        PeerCloses(0),
        Settle,
        Send(0, 10),
        Settle,
        Send(0, 10),
        Settle,
        Receive(0, Many),
        Settle,
        Close(0),
    ]);
}

#[test]
fn a_peer_that_closes_with_unread_input_resets() {
    conforms_when_connected(&[Send(0, 10), Settle, PeerCloses(0), Settle, Send(0, 10), Settle]);
}

#[test]
fn what_is_sent_arrives_before_the_half_close() {
    conforms_when_connected(&[
        Send(0, 1000),
        Settle,
        HalfClose(0),
        PeerReads(0),
        PeerWrites(0, 10),
        Settle,
        Send(0, 10),
        Settle,
        PeerFinishes(0),
        Settle,
        Close(0),
    ]);
}

#[test]
fn an_abort_completes_what_is_in_the_kernel() {
    conforms_when_connected(&[SendUntilFull(0), Settle, Abort(0), Settle, Close(0), PeerReads(0)]);
    conforms_when_connected(&[Abort(0), Settle, PeerReads(0), Close(0), PeerReads(0)]);
    conforms_when_connected(&[
        PeerWrites(0, 10),
        Settle,
        Abort(0),
        PeerWrites(0, 10),
        Settle,
        Receive(0, Many),
        Settle,
        PeerReads(0),
        Send(0, 10),
        Settle,
    ]);
}

#[test]
fn a_reset_hides_behind_a_fin_that_came_first() {
    conforms_when_connected(&[
        Send(0, 10),
        Settle,
        PeerFinishes(0),
        Settle,
        PeerResets(0),
        Settle,
        Receive(0, Many),
        Settle,
        Send(0, 10),
        Settle,
    ]);
    conforms_when_connected(&[
        HalfClose(0),
        PeerReads(0),
        PeerWrites(0, 10),
        Settle,
        CancelReceive(0),
        Settle,
        PeerWrites(0, 10),
        Close(0),
        PeerReads(0),
    ]);
}

#[test]
fn a_full_socket_takes_more_once_the_peer_reads() {
    conforms_when_connected(&[SendUntilFull(0), Settle, PeerReads(0), Settle, PeerReads(0), Settle, Abort(0), Settle]);
}

#[test]
fn what_the_peers_side_has_no_room_for_is_unacknowledged_until_it_reads() {
    conforms_when_connected(&[
        LookAt(0),
        Send(0, 1000),
        Settle,
        LookAt(0),
        HalfClose(0),
        PeerReads(0),
        // The FIN's acknowledgement may be delayed.
        Settle,
        Settle,
        Settle,
        LookAt(0),
    ]);
    conforms_when_connected(&[SendUntilFull(0), Settle, LookAt(0), Abort(0), Settle, PeerReads(0), Settle, LookAt(0)]);
}

#[test]
fn closing_sends_no_fin_while_a_receive_is_in_the_kernel() {
    conforms_when_connected(&[
        Close(0),
        Settle,
        PeerReads(0),
        PeerWrites(0, 10),
        Settle,
        CancelReceive(0),
        Settle,
        PeerReads(0),
    ]);
}

#[test]
fn closing_with_unread_input_resets_the_peer() {
    conforms(&[Accept, PeerConnects, Settle, PeerWrites(0, 10), Close(0), PeerReads(0)]);
    conforms(&[Accept, PeerConnects, Settle, Close(0), PeerReads(0), PeerWrites(0, 10), PeerReads(0)]);
}

#[test]
fn alarms_and_timers_complete_once() {
    conforms(&[
        AwaitAlarm, Settle, RingAlarm, RingAlarm, Settle, RingAlarm, Settle, AwaitAlarm, Settle, AwaitAlarm, Settle,
        RingAlarm, Settle,
    ]);
    conforms(&[StartTimer(Duration::from_millis(2)), Settle, Settle]);
    conforms(&[StartTimer(Duration::from_secs(60)), Settle]);
}
