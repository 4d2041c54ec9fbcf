//! An initialiser that runs into its own lock by way of a task.

use super::{tell, telling};
use crate::program::{Cast, Kept, Kernel};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use tokio::sync::{Barrier, Mutex, OnceCell, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};

const RENDERERS: usize = 2;

pub fn all() -> Vec<Kernel> {
    vec![Kernel {
        id: "hugo_5379",
        codes: "M",
        flaky: false,
        leaks: |cast| Box::pin(leaks(cast)),
        fixed: |_| Box::pin(fixed()),
        ends_by_drop: false,
    }]
}

struct Page {
    content: OnceCell<()>,
    plain: OnceCell<()>,
    content_lock: Mutex<()>,
    /// Where the renderers let the shortcode go first.
    order: Barrier,
    /// Told when the shortcode waits for the lock.
    locks: StdMutex<Option<oneshot::Sender<()>>>,
}

impl Page {
    fn new() -> (Arc<Self>, oneshot::Receiver<()>) {
        let (locks, locking) = oneshot::channel();
        let page = Arc::new(Self {
            content: OnceCell::new(),
            plain: OnceCell::new(),
            content_lock: Mutex::new(()),
            order: Barrier::new(RENDERERS + 1),
            locks: StdMutex::new(Some(locks)),
        });
        (page, locking)
    }

    /// What the page's shortcode does while the content is being initialised: it asks for the
    /// word count of its own page, and so waits for that initialiser first.
    async fn run_shortcode(&self) {
        self.content.get_or_init(|| async {}).await;
        self.plain
            .get_or_init(|| async {
                self.order.wait().await;
                let locks = self
                    .locks
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                let locks = locks.expect("the page has one shortcode");
                drop(telling(locks, self.content_lock.lock()).await);
            })
            .await;
    }

    /// The plain text, for a renderer.
    async fn init_plain(&self) {
        self.order.wait().await;
        self.plain
            .get_or_init(|| async { drop(self.content_lock.lock().await) })
            .await;
    }
}

async fn build(
    page: Arc<Page>,
    renderer: impl Fn(Arc<Page>) -> JoinHandle<()>,
) -> Result<(), JoinError> {
    let renderers = [(); RENDERERS].map(|()| renderer(Arc::clone(&page)));
    for renderer in renderers {
        renderer.await?;
    }
    Ok(())
}

/// hugo_5379: a task initialises the page's content under a lock and runs its shortcode, which
/// wants the page's word count and locks again, after the initialiser was given up because of
/// its time limit. The renderers wait for the word count, and the build for the renderers.
/// Here the time is up once the task has the lock. The tasks keep all of it themselves.
async fn leaks(cast: Cast) -> Kept {
    let (page, locking) = Page::new();
    let of_renderers = cast.clone();
    let renderer = move |page: Arc<Page>| {
        let cast = of_renderers.clone();
        of_renderers.stays(async move {
            let init = || init_content(&page, &cast);
            page.content.get_or_init(init).await;
            page.init_plain().await;
        })
    };
    cast.stays(build(page, renderer));
    locking.await.expect("the shortcode locks");
    Kept::nothing()
}

async fn init_content(page: &Arc<Page>, cast: &Cast) {
    let (give_up, time_is_up) = oneshot::channel();
    let (done, mut is_done) = mpsc::channel(1);
    let page = Arc::clone(page);
    cast.stays(async move {
        let _locked = page.content_lock.lock().await;
        tell(give_up);
        page.run_shortcode().await;
        done.send(()).await.ok();
    });
    tokio::select! {
        _ = time_is_up => {}
        _ = is_done.recv() => {}
    }
}

/// The lock is taken by the one who waits for the task, and is free again once he gives it up.
async fn fixed() -> Kept {
    let (page, locking) = Page::new();
    let renderer = |page: Arc<Page>| {
        tokio::spawn(async move {
            page.content.get_or_init(|| init_content_fixed(&page)).await;
            page.init_plain().await;
        })
    };
    let built = tokio::spawn(build(page, renderer));
    locking.await.expect("the shortcode locks");
    let rendered = built.await.expect("the site is built");
    rendered.expect("the page is rendered");
    Kept::nothing()
}

async fn init_content_fixed(page: &Arc<Page>) {
    let (give_up, time_is_up) = oneshot::channel();
    let (done, mut is_done) = mpsc::channel(1);
    let _locked = page.content_lock.lock().await;
    let page = Arc::clone(page);
    tokio::spawn(async move {
        tell(give_up);
        page.run_shortcode().await;
        // Nobody waits for it any more.
        done.send(()).await.ok();
    });
    tokio::select! {
        _ = time_is_up => {}
        _ = is_done.recv() => {}
    }
}
