//! `edgethink eval TASK...`: benchmarks on a model or a server, with a record of every answer.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use edgethink_eval::EvalError;
use edgethink_eval::code::Sandbox;
use edgethink_eval::endpoint::Endpoint;
use edgethink_eval::local::Local;
use edgethink_eval::question::{self, Question};
use edgethink_eval::resources::{Meter, Session};
use edgethink_eval::run::Plan;
use edgethink_eval::store::{Keep, Store};
use edgethink_eval::subject::Subject;
use edgethink_eval::summary::{self, Summary};
use edgethink_eval::task::Task;
use edgethink_model::hub::Hub;
use edgethink_reason::{Input, Query, Reasoner};
use serde_json::{Map, Value, json};

use crate::args::eval::{EndpointArgs, Fresh, TasksArgs};
use crate::args::{SamplingArgs, ThinkingArgs};
use crate::interrupt::{self, Running};
use crate::open::{self, Need, Opened};
use crate::progress::Progress;
use crate::screen::Screen;
use crate::settings;
use crate::show::rate;
use crate::table::table;

/// A task with its questions.
struct Loaded {
    task: Task,
    questions: Vec<Question>,
    /// Of the files they came from.
    hash: String,
}

/// Runs the command.
pub(crate) fn run(args: &TasksArgs) -> Result<ExitCode> {
    if args.list {
        return list();
    }
    let hub = Hub::from_env(args.asked.model.offline, Screen::stderr().live)?;
    let mut loaded = Vec::new();
    let mut names = BTreeSet::new();
    for text in &args.tasks {
        let one = load(text, args, &hub)?;
        if !names.insert(one.task.name.clone()) {
            bail!("task {} is given twice", one.task.name);
        }
        loaded.push(one);
    }
    let sandbox = args.run_code.then(Sandbox::new).transpose()?;
    let mut under_test = UnderTest::open(args, &loaded)?;
    let mut settings = under_test.settings();
    settings.insert("system".to_owned(), json!(args.asked.system));
    for one in &loaded {
        let (asked, repeats) = (under_test.describe(args, &one.task)?, one.repeats(args));
        let entry = json!({"task": one.task, "data": one.hash, "asked": asked, "repeats": repeats});
        settings.insert(format!("task {}", one.task.name), entry);
    }
    let keep = if args.compact {
        Keep::Compact
    } else {
        Keep::Full
    };
    let mut store = open_store(args, settings, keep)?;
    let meter = Meter::start();
    let mut answered = 0;
    let mut finished = true;
    for one in &loaded {
        let plan = Plan {
            task: &one.task.name,
            questions: &one.questions,
            repeats: one.repeats(args),
            seed: args.asked.sampling.seed,
            sandbox: sandbox.as_ref(),
        };
        let mut progress = Progress::new(plan.task, plan.queries(), plan.done(&store))?;
        let mut subject = under_test.subject(args, &one.task)?;
        let (mut asked, mut right) = (0_usize, 0_usize);
        let running = Running::start();
        let done = plan.run(
            &mut store,
            subject.as_mut(),
            &interrupt::pressed,
            |correct| {
                asked += 1;
                right += usize::from(correct);
                progress.went(&format!(
                    "{:.1} % right",
                    100.0 * right as f64 / asked as f64
                ));
            },
        );
        drop(running);
        answered += asked;
        match done {
            Ok(true) => {}
            Ok(false) => {
                finished = false;
                break;
            }
            Err(error) => {
                store.end_session(meter.read(answered))?;
                return Err(error.into());
            }
        }
    }
    store.end_session(meter.read(answered))?;
    if finished {
        store.finish()?;
    }
    show(args, &store, &names)?;
    if !finished {
        eprintln!("stopped before all was asked");
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    Ok(ExitCode::SUCCESS)
}

/// The records of `--out`, or of a run in memory.
fn open_store(args: &TasksArgs, settings: Map<String, Value>, keep: Keep) -> Result<Store> {
    let open = |settings, fresh| Store::open(args.out.as_deref(), settings, keep, fresh);
    match open(settings.clone(), args.fresh == Some(Fresh::Always)) {
        Err(EvalError::OtherRun { dir, what, .. }) if args.fresh == Some(Fresh::Other) => {
            let dir = dir.display();
            eprintln!("{dir} holds the records of another run ({what} differs): begun anew");
            Ok(open(settings, true)?)
        }
        store => Ok(store?),
    }
}

fn list() -> Result<ExitCode> {
    let rows = Task::built_in()?.into_iter().map(|task| {
        let hub = task
            .hub
            .map_or_else(|| "a file of yours".to_owned(), |hub| hub.repo);
        vec![task.name, format!("x {}", task.repeats), hub, task.about]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    write!(
        std::io::stdout(),
        "{}",
        table(&["task", "asked", "data", "what"], &rows)
    )?;
    Ok(ExitCode::SUCCESS)
}

impl Loaded {
    fn repeats(&self, args: &TasksArgs) -> usize {
        args.repeats.unwrap_or(self.task.repeats)
    }
}

fn load(text: &str, args: &TasksArgs, hub: &Hub) -> Result<Loaded> {
    let (name, file) = match text.split_once('=') {
        Some((name, file)) => (name, Some(Path::new(file))),
        None => (text, None),
    };
    let task = Task::named(name)?;
    let files = question::files(&task, file, hub)?;
    let hash = hash(&files)?;
    let mut questions = question::read(&task, &files)?;
    questions.truncate(args.limit.unwrap_or(questions.len()));
    Ok(Loaded {
        task,
        questions,
        hash,
    })
}

fn hash(files: &[PathBuf]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for path in files {
        let file =
            std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        hasher.update_reader(file)?;
    }
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

/// A model in this program, or a server.
enum UnderTest {
    Local {
        reasoner: Box<Reasoner>,
        settings: Map<String, Value>,
    },
    Endpoint,
}

impl UnderTest {
    fn open(args: &TasksArgs, loaded: &[Loaded]) -> Result<Self> {
        if args.endpoint.endpoint.is_some() {
            if args.vote.n > 1 || args.vote.verify.is_some() {
                bail!("an endpoint answers once: use --repeats instead of --n, and no --verify");
            }
            return Ok(Self::Endpoint);
        }
        let opened = open::open(&args.asked.model)?;
        let settings = identity(&opened, args)?;
        let most = loaded
            .iter()
            .map(|one| one.questions.len() * one.repeats(args))
            .max();
        let batch = args.asked.batch.min(most.unwrap_or(1));
        // The longest response of any task counts; one without a limit of its own may fill the context.
        let limits = loaded.iter().map(|one| thinking(args, &one.task));
        let responses: Vec<Option<usize>> =
            limits.map(|limits| Need::one(&limits).response).collect();
        let need = Need {
            streams: batch * usize::from(args.vote.n),
            prompts: batch,
            response: responses
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().max()),
        };
        let reasoner = open::reasoner(opened, &args.asked.engine, &args.asked.thinking, &need)?;
        Ok(Self::Local {
            reasoner: Box::new(reasoner),
            settings,
        })
    }

    fn settings(&self) -> Map<String, Value> {
        match self {
            Self::Local { settings, .. } => settings.clone(),
            Self::Endpoint => Map::new(),
        }
    }

    /// What makes a task's answers, beside the model and the questions.
    fn describe(&self, args: &TasksArgs, task: &Task) -> Result<Value> {
        Ok(match self {
            Self::Local { reasoner, .. } => settings::of_query(&template(reasoner, args, task)),
            Self::Endpoint => {
                let endpoint = endpoint(args, task)?;
                json!({"url": endpoint.url, "model": endpoint.model, "fields": endpoint.fields, "seed": args.asked.sampling.seed})
            }
        })
    }

    fn subject<'a>(&'a mut self, args: &TasksArgs, task: &Task) -> Result<Box<dyn Subject + 'a>> {
        Ok(match self {
            Self::Local { reasoner, .. } => Box::new(Local {
                query: template(reasoner, args, task),
                reasoner,
                system: args.asked.system.clone(),
                batch: args.asked.batch,
            }),
            Self::Endpoint => Box::new(endpoint(args, task)?),
        })
    }
}

/// What a model, its adapter and its heads are: hashes of their content.
fn identity(opened: &Opened, args: &TasksArgs) -> Result<Map<String, Value>> {
    Ok(settings::object(json!({
        "model": opened.model.hash()?.to_string(),
        "adapter": opened.adapter.as_ref().map(|adapter| adapter.hash.to_string()),
        "format": settings::of_format(&opened.format),
        "switcher": opened.hashes.switcher,
        "verifier": opened.hashes.verifier,
        "engine": settings::of_engine(&args.asked.engine.format),
        "answer_phrase": args.asked.thinking.answer_phrase,
        "budget_line": args.asked.thinking.budget_line,
    })))
}

/// The flags, completed by what the task's protocol says.
fn thinking(args: &TasksArgs, task: &Task) -> ThinkingArgs {
    ThinkingArgs {
        max_tokens: args.asked.thinking.max_tokens.or(task.sampling.max_tokens),
        ..args.asked.thinking.clone()
    }
}

fn sampling(args: &TasksArgs, task: &Task) -> SamplingArgs {
    SamplingArgs {
        temperature: args
            .asked
            .sampling
            .temperature
            .or(task.sampling.temperature),
        top_p: args.asked.sampling.top_p.or(task.sampling.top_p),
        ..args.asked.sampling.clone()
    }
}

/// Everything of a query but its prompt and its seed.
fn template(reasoner: &Reasoner, args: &TasksArgs, task: &Task) -> Query {
    let input = Input::Raw(String::new());
    let query = open::query(
        reasoner,
        input,
        &thinking(args, task),
        &sampling(args, task),
    );
    open::with_vote(query, &args.vote)
}

fn endpoint(args: &TasksArgs, task: &Task) -> Result<Endpoint> {
    let EndpointArgs {
        endpoint,
        endpoint_model,
        endpoint_key,
        endpoint_field,
        retries,
        timeout,
    } = &args.endpoint;
    let (sampling, thinking) = (sampling(args, task), thinking(args, task));
    let mut fields = Map::new();
    let float = |x: Option<f32>| x.map(|x| json!((f64::from(x) * 1e6).round() / 1e6));
    let given = [
        ("temperature", float(sampling.temperature)),
        ("top_p", float(sampling.top_p)),
        ("max_tokens", thinking.max_tokens.map(|n| json!(n))),
    ];
    fields.extend(
        given
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?))),
    );
    fields.extend(endpoint_field.iter().cloned());
    Ok(Endpoint {
        url: endpoint.clone().context("no endpoint is given")?,
        model: endpoint_model
            .clone()
            .context("no model of the endpoint is given")?,
        key: endpoint_key.clone(),
        fields,
        system: args.asked.system.clone(),
        concurrency: args.asked.batch,
        retries: *retries,
        timeout: Duration::from_secs(*timeout),
    })
}

fn show(args: &TasksArgs, store: &Store, names: &BTreeSet<String>) -> Result<()> {
    let mut records = store.records().to_vec();
    records.retain(|record| names.contains(&record.task));
    let summaries = summary::by_task(&mut records);
    let sessions = &store.run().sessions;
    let mut out = std::io::stdout();
    if args.json {
        let all =
            json!({"tasks": summaries, "sessions": sessions, "settings": store.run().settings});
        writeln!(out, "{all}")?;
    } else {
        write!(out, "{}", text(&summaries, sessions))?;
    }
    Ok(())
}

fn text(summaries: &[Summary], sessions: &[Session]) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let rows: Vec<Vec<String>> = summaries
        .iter()
        .map(|task| {
            let interval = task.interval.map_or_else(String::new, |i| {
                format!("{:.1} to {:.1}", 100.0 * i.low, 100.0 * i.high)
            });
            vec![
                task.task.clone(),
                task.questions.to_string(),
                (task.queries / task.questions.max(1)).to_string(),
                percent(task.accuracy),
                interval,
                format!("{:.1}", task.tokens_per_query),
                format!("{:.0}", task.tokens_median),
                percent(task.unfinished_share),
                task.ttft_ms
                    .map_or_else(String::new, |ms| format!("{ms:.1} ms")),
                format!("{:.3} s", task.seconds),
            ]
        })
        .collect();
    let head = [
        "task",
        "questions",
        "times",
        "right",
        "95 %",
        "tokens",
        "median",
        "unfinished",
        "first token",
        "per query",
    ];
    let mut text = table(&head, &rows);
    for task in summaries {
        let pass: Vec<String> = task
            .pass
            .iter()
            .map(|(k, p)| format!("@{k} {}", percent(*p)))
            .collect();
        if !pass.is_empty() {
            text.push_str(&format!("\n{}: pass {}\n", task.task, pass.join(", ")));
        }
        for entry in task.votes.iter().flat_map(|votes| &votes.by_n) {
            let weighted = entry
                .weighted
                .map_or_else(String::new, |w| format!(", weighted {}", w.text()));
            text.push_str(&format!(
                "{}: maj@{} {}{weighted}\n",
                task.task,
                entry.n,
                entry.majority.text()
            ));
        }
        if let Some(share) = task.thought_share {
            text.push_str(&format!(
                "{}: {} of the queries thought about\n",
                task.task,
                percent(share)
            ));
        }
    }
    let queries: usize = sessions.iter().map(|session| session.queries).sum();
    let seconds: f64 = sessions.iter().map(|session| session.seconds).sum();
    if queries > 0 {
        let memory = sessions
            .iter()
            .filter_map(|session| session.peak_memory_bytes)
            .max();
        let memory = memory.map_or_else(String::new, |bytes| {
            format!(
                ", at most {:.1} MiB of memory",
                bytes as f64 / f64::from(1 << 20)
            )
        });
        let each = rate(queries as f64 / seconds.max(1e-9));
        text.push_str(&format!(
            "\n{queries} queries in {seconds:.1} s ({each} per second){memory}\n"
        ));
    }
    text
}
