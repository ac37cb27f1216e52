//! The server as a whole: the routes, the listening socket, and the way it ends.
//!
//! One thread serves all connections, one owns the reasoner. When it is told to stop, new requests get 503, what runs and waits is
//! answered, and then the socket closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use edgethink_model::Model;
use edgethink_reason::{Query, Reasoner};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::app::{App, Facts, LoadedAdapter};
use crate::error::told;
use crate::metrics::Metrics;
use crate::options::{Options, ServeError};
use crate::worker::handle::{Handle, WorkerThread};
use crate::{chat, completions, guard, manage, messages, openapi, page, responses};

/// How often a running server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// For clients to read the end of their answers.
const GRACE: Duration = Duration::from_secs(5);
/// How often recorded times are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// A server whose reasoner is at work.
#[derive(Debug)]
pub struct Server {
    app: App,
    worker: WorkerThread,
}

impl Server {
    /// Gives `reasoner`, which must run `model`, to a thread of its own. `defaults` is what a request leaves open; its input is not used.
    ///
    /// # Errors
    /// A thread that cannot be started, an adapter root that is no directory.
    pub fn start(
        reasoner: Reasoner,
        model: Arc<Model>,
        defaults: Query,
        mut options: Options,
    ) -> Result<Self, ServeError> {
        if let Some(root) = &options.adapter_root {
            let real = root.canonicalize();
            let real = real.map_err(|source| ServeError::AdapterRoot {
                path: root.display().to_string(),
                source,
            })?;
            options.adapter_root = Some(real);
        }
        let metrics = Metrics::new().map_err(|error| ServeError::Engine(error.to_string()))?;
        let metrics = Arc::new(metrics);
        let facts = Facts::of(&reasoner);
        let adapter = reasoner.adapter().map(|adapter| LoadedAdapter {
            name: options.adapter.clone(),
            masked: adapter.invocation.is_some(),
            rank: adapter.rank_max,
            format: reasoner.format().clone(),
            own: true,
        });
        metrics.observe(&reasoner.engine().stats(), 0, 0);
        let (handle, worker) =
            Handle::start(reasoner, Arc::clone(&metrics)).map_err(ServeError::Start)?;
        let app = App::new(options, model, defaults, handle, metrics, facts, adapter);
        Ok(Self { app, worker })
    }

    /// All routes.
    ///
    /// # Errors
    /// An origin of the options that is none.
    pub fn router(&self) -> Result<Router, ServeError> {
        let app = self.app.clone();
        let cors = cors(&app.options.origins)?;
        let routes = Router::new()
            .route("/", get(page::index))
            .route("/page/{name}", get(page::file))
            .route("/openapi.json", get(openapi::show))
            .route("/health", get(manage::health))
            .route("/metrics", get(manage::metrics))
            .route("/props", get(manage::props::show))
            .route("/tokenize", post(manage::text::tokenize))
            .route("/detokenize", post(manage::text::detokenize))
            .route("/apply-template", post(manage::text::apply_template))
            .route("/v1/models", get(manage::models::list))
            .route("/v1/models/{*model}", get(manage::models::show))
            .route("/v1/embeddings", post(manage::embeddings))
            .route("/v1/load_lora_adapter", post(manage::adapters::load))
            .route("/v1/unload_lora_adapter", post(manage::adapters::unload))
            .route("/v1/completions", post(completions::create))
            .route("/v1/responses", post(responses::create))
            .route("/v1/messages", post(messages::create))
            .route("/v1/messages/count_tokens", post(messages::count_tokens))
            .route("/v1/chat/completions", post(chat::create))
            .route(
                "/v1/chat/completions/{id}/end_thought",
                post(chat::end_thought),
            )
            .fallback(manage::unknown)
            .method_not_allowed_fallback(manage::wrong_method)
            .layer(DefaultBodyLimit::max(app.options.limits.body_bytes))
            .layer(from_fn_with_state(app.clone(), guard::check));
        // Before the guard: a browser asks for permission without a key.
        let routes = match cors {
            Some(cors) => routes.layer(cors),
            None => routes,
        };
        Ok(routes.with_state(app))
    }

    /// Takes no new requests from now on; those that are here are answered.
    pub fn drain(&self) {
        self.app.worker.drain();
    }

    /// Serves until `stop` says so and everything that was asked is answered. `ready` is told the address.
    ///
    /// # Errors
    /// An address that cannot be listened on, an engine that fails.
    pub fn run(
        self,
        stop: impl Fn() -> bool + Send + 'static,
        ready: impl FnOnce(SocketAddr),
    ) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServeError::Start)?;
        let router = self.router()?;
        let Self { app, worker } = self;
        let ending = app.clone();
        runtime.block_on(async move {
            let options = &app.options;
            let address = format!("{}:{}", options.host, options.port);
            let listen = |source| ServeError::Listen { address, source };
            let at = (options.host.as_str(), options.port);
            let listener = TcpListener::bind(at).await;
            let bound = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (address, listener) = bound.map_err(listen)?;
            ready(address);
            // A token is a small packet, and must not wait for the next one. A socket that refuses this is only slower.
            let listener = listener.tap_io(|stream| {
                let _ = stream.set_nodelay(true);
            });
            let (tell, told) = oneshot::channel();
            let closing = async move {
                ended(ending, stop).await;
                // Nobody listens if all connections are closed already.
                let _ = tell.send(());
            };
            let serving = axum::serve(listener, router).with_graceful_shutdown(closing);
            tokio::select! {
                served = serving.into_future() => served.map_err(ServeError::Start),
                () = patience(told) => Ok(()),
            }
        })?;
        runtime.shutdown_timeout(Duration::from_secs(1));
        if !worker.is_finished() {
            return Ok(());
        }
        match worker.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ServeError::Engine(told(&error))),
            Err(_) => Err(ServeError::Engine("its thread panicked".to_owned())),
        }
    }
}

/// Ends some time after the server is to end: a client that does not read its answer must not keep the program.
async fn patience(told: oneshot::Receiver<()>) {
    if told.await.is_ok() {
        tokio::time::sleep(GRACE).await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// Waits until the server is to end: told to and idle, out of patience, or without an engine.
async fn ended(app: App, stop: impl Fn() -> bool) {
    let mut kept = Instant::now();
    while !stop() && !app.worker.is_failed() {
        tokio::time::sleep(LOOK).await;
        if kept.elapsed() > UPKEEP {
            kept = Instant::now();
            app.metrics.upkeep();
        }
    }
    app.worker.drain();
    let patience = Instant::now() + app.options.limits.drain;
    while !app.worker.is_idle() && !app.worker.is_failed() && Instant::now() < patience {
        tokio::time::sleep(LOOK).await;
    }
}

/// What browsers may let other origins do: nothing unless origins are listed.
fn cors(origins: &[String]) -> Result<Option<CorsLayer>, ServeError> {
    if origins.is_empty() {
        return Ok(None);
    }
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let values: Result<Vec<HeaderValue>, ServeError> = origins
            .iter()
            .map(|origin| {
                let value = HeaderValue::from_str(origin).ok();
                let value = value.filter(|_| origin.contains("://"));
                value.ok_or_else(|| ServeError::Setting {
                    what: "origin, such as https://example.org",
                    value: origin.clone(),
                })
            })
            .collect();
        AllowOrigin::list(values?)
    };
    let layer = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            header::HeaderName::from_static("x-api-key"),
            header::HeaderName::from_static("anthropic-version"),
        ]);
    Ok(Some(layer))
}
