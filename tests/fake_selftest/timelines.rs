//! Virtual time moves when nothing more can happen, exactly as far as somebody waits, and at no other time.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::support::timeline::{ROUNDS, Timeline};

const MICROSECOND: Duration = Duration::from_micros(1);

#[tokio::test(start_paused = true)]
async fn a_wait_takes_exactly_its_time() {
    let timeline = Timeline::start();
    assert!(timeline.is_virtual());
    let start = Instant::now();
    for micros in [600, 1, 6_237, 0, 999] {
        let before = Instant::now();
        timeline.pass(MICROSECOND * micros).await;
        assert_eq!(before.elapsed(), MICROSECOND * micros);
    }
    timeline.until(start).await;
    assert_eq!(start.elapsed(), MICROSECOND * 7_837, "the past is no time to wait for");
}

#[tokio::test(start_paused = true)]
async fn waits_end_in_the_order_of_their_times_and_then_of_their_beginnings() {
    let timeline = Timeline::start();
    let (ended, mut order) = mpsc::unbounded_channel();
    for (name, micros, last) in [("c", 700, false), ("last", 300, true), ("a", 300, false), ("b", 300, false)] {
        let (timeline, ended) = (timeline.clone(), ended.clone());
        tokio::spawn(async move {
            let at = timeline.now() + MICROSECOND * micros;
            timeline.until(at).await;
            if last {
                timeline.settled().await;
            }
            ended.send((name, Instant::now())).unwrap();
        });
    }
    drop(ended);
    let mut names = Vec::new();
    while let Some((name, _)) = order.recv().await {
        names.push(name);
    }
    assert_eq!(names, ["a", "b", "last", "c"]);
}

/// A byte goes back and forth over a loopback connection this often.
async fn ping_pong(times: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
        }
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..times {
        stream.write_all(&[1]).await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
    }
    drop(stream);
    echo.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sockets_take_no_time() {
    let timeline = Timeline::start();
    // Somebody else waits for times that are never far.
    let (other, ticks) = (timeline.clone(), Instant::now());
    tokio::spawn(async move {
        loop {
            other.pass(MICROSECOND * 50).await;
        }
    });
    for _ in 0..100 {
        timeline.pass(MICROSECOND * 80).await;
        let before = Instant::now();
        ping_pong(8).await;
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    assert_eq!(ticks.elapsed(), MICROSECOND * 8_000);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_fires_in_its_time_and_not_before() {
    let timeline = Timeline::start();
    let start = Instant::now();
    let done = timeout(Duration::from_secs(2), timeline.pass(Duration::from_micros(1_999_400))).await;
    assert!(done.is_ok());
    let late = timeout(Duration::from_secs(2), timeline.pass(Duration::from_secs(3))).await;
    assert!(late.is_err());
    // Nobody whom the timeline knows waits any more, and other people's timers fire all the same.
    sleep(Duration::from_millis(40)).await;
    let millis = start.elapsed().as_millis();
    assert!((4039..=5041).contains(&millis), "{millis}");
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_causes_may_be_long_and_its_length_is_known() {
    let timeline = Timeline::start();
    timeline.pass(MICROSECOND).await;
    let shallow = timeline.deepest();
    for _ in 0..ROUNDS / 4 {
        tokio::task::yield_now().await;
    }
    let before = Instant::now();
    timeline.pass(MICROSECOND).await;
    assert_eq!(before.elapsed(), MICROSECOND);
    assert!(shallow < ROUNDS / 4 && timeline.deepest() >= ROUNDS / 4, "{shallow}, {}", timeline.deepest());
}

#[tokio::test]
async fn time_is_real_where_the_clock_runs() {
    let timeline = Timeline::start();
    assert!(!timeline.is_virtual());
    let real = std::time::Instant::now();
    timeline.pass(Duration::from_millis(5)).await;
    timeline.settled().await;
    assert!(real.elapsed() >= Duration::from_millis(5));
}
