//! A server's stream of events, in pieces: however it was cut, it says the same.

use sidedraft::upstream::Route;
use sidedraft::upstream::fuzzing::events;

/// The first byte chooses the route, the next two where the stream is cut.
pub fn run(data: &[u8]) {
    let [route, first, second, stream @ ..] = data else { return };
    let route = if route % 2 == 0 { Route::Completions } else { Route::Generate };
    let cut = |at: u8| usize::from(at) * stream.len() / 255;
    let (early, late) = (cut((*first).min(*second)), cut((*first).max(*second)));
    let pieces = [&stream[..early], &stream[early..late], &stream[late..]];
    let (whole, cut) = (events(route, &[stream]), events(route, &pieces));
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
}
