//! The Rust client against the real server.

mod common;

use disrust_client::{Client, Error};
use disrust_protocol::FEATURE_DIM;

use common::{PATIENCE, TestServer, config, random_rows, seeded, truth};

/// Whoever calls, with any number of rows, gets the scores of these rows, and rows of another width never leave.
#[tokio::test]
async fn any_number_of_rows_is_scored() {
    let server = TestServer::start(config());
    let client = Client::connect([server.address().to_string()]).await.expect("the server listens");
    let mut rng = seeded();
    for count in [0, 1, 2, 63, 64, 65, 10_000] {
        let rows = random_rows(&mut rng, FEATURE_DIM, count);
        let scores = client.predict_within(&rows, FEATURE_DIM, PATIENCE).await.expect("the server answers");
        assert_eq!(scores.outputs, 1);
        assert_eq!(scores.values, truth::scores(FEATURE_DIM, &rows));
    }
    let shape = client.predict(&[0.0; 17], FEATURE_DIM).await;
    assert_eq!(shape, Err(Error::Shape { values: 17, features: FEATURE_DIM }));
    assert!(client.check(PATIENCE).await.iter().all(|check| check.is_ready()));
}

/// Threads that wait get the same.
#[test]
fn a_thread_that_waits_is_answered() {
    let server = TestServer::start(config());
    let client = disrust_client::blocking::Client::connect([server.address().to_string()]).expect("it listens");
    let rows = random_rows(&mut seeded(), FEATURE_DIM, 200);
    let scores = client.predict_within(&rows, FEATURE_DIM, PATIENCE).expect("the server answers");
    assert_eq!(scores.values, truth::scores(FEATURE_DIM, &rows));
}
