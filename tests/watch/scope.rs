//! Which tasks belong to a watch.

use std::future::pending;
use straggler::testing::watch;

#[tokio::test]
async fn what_the_test_spawns() {
    let watch = watch();
    tokio::spawn(pending::<()>());
    let left = watch
        .settle(std::time::Duration::from_millis(50))
        .stragglers()
        .await;
    println!("{left}");
    assert_eq!(left.tasks().len(), 1);
    assert!(left.completeness().is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_descendants_spawn() {
    let watch = watch();
    let child = tokio::spawn(async {
        tokio::spawn(async { tokio::spawn(pending::<()>()) })
            .await
            .unwrap();
    });
    child.await.unwrap();
    let left = watch
        .settle(std::time::Duration::from_millis(50))
        .stragglers()
        .await;
    println!("{left}");
    assert_eq!(left.tasks().len(), 1);
    assert!(left.completeness().is_complete());
    let all = watch_all();
    fn watch_all() -> u8 {
        1
    }
    let _ = all;
}
