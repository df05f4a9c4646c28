use futures_util::FutureExt;

use super::*;
use crate::telemetry::Metrics;

fn control() -> Control {
    Control::new(Metrics::register().unwrap().control)
}

fn member(control: &Control, id: &str) -> Member {
    control.enter(Arc::from(id))
}

#[tokio::test]
async fn a_hold_waits_for_the_turns_under_way_and_lets_none_begin() {
    let control = control();
    let (a, b) = (member(&control, "a"), member(&control, "b"));
    let turn = a.turn().await;
    let mut hold = Box::pin(control.hold());
    assert!(hold.as_mut().now_or_never().is_none(), "a turn is under way");
    turn.is_wanted().await;
    assert!(b.turn().now_or_never().is_none(), "a control request waits");
    drop(turn);
    let hold = hold.await;
    assert!(b.turn().now_or_never().is_none(), "it has the gate");
    control.set_version("2");
    drop(hold);
    assert_eq!(&**b.turn().await.version(), "2");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_does_not_end_is_broken_off() {
    let control = control();
    let member = member(&control, "a");
    let turn = member.turn().await;
    let (_hold, ()) = tokio::join!(control.hold(), async move { turn.broken().await });
    assert_eq!(control.shared.metrics.broken_turns.get(), 1);
}

#[tokio::test]
async fn a_hold_that_is_given_up_leaves_no_trace() {
    let control = control();
    let member = member(&control, "a");
    let turn = member.turn().await;
    assert!(control.hold().now_or_never().is_none());
    drop(turn);
    assert!(member.turn().now_or_never().is_some());
}

#[tokio::test]
async fn an_abort_reaches_those_that_are_named() {
    let control = control();
    let (a, b) = (member(&control, "a"), member(&control, "b"));
    assert_eq!(control.abort(Some(&["a".to_owned(), "zz".to_owned()])), 1);
    a.aborted().await;
    assert!(b.aborted().now_or_never().is_none());
    assert_eq!(control.abort(None), 1, "one is left to abort");
    b.aborted().await;
}

#[tokio::test]
async fn a_pause_that_waits_lets_those_finish_that_had_begun() {
    let control = control();
    let before = member(&control, "before");
    let mut pause = Box::pin(control.pause(PauseMode::Wait));
    assert!(pause.as_mut().now_or_never().is_none());
    let after = member(&control, "after");
    assert!(after.turn().now_or_never().is_none(), "who comes later waits");
    drop(before.turn().await);
    drop(before);
    pause.await.keep();
    assert!(control.is_paused() && after.turn().now_or_never().is_none());
    control.resume();
    after.turn().await;
}

#[tokio::test]
async fn a_pause_that_waits_does_not_wait_for_those_that_stand_still() {
    let control = control();
    let _member = member(&control, "a");
    control.pause(PauseMode::Keep).await.keep();
    control.pause(PauseMode::Wait).await.keep();
    assert!(control.is_paused());
}

#[tokio::test]
async fn a_pause_that_the_server_refuses_never_was() {
    let control = control();
    let member = member(&control, "a");
    drop(control.pause(PauseMode::Keep).await);
    member.turn().await;
    control.pause(PauseMode::Abort).await.keep();
    member.aborted().await;
    assert!(member.turn().now_or_never().is_none());
}
