//! `edgethink serve`: the model behind HTTP, until a signal.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Command as Program, CommandFactory, FromArgMatches, Parser};
use edgethink_reason::Input;
use edgethink_server::{ApiKeys, Limits, Options, Server};

use crate::args::serve::ServeArgs;
use crate::args::{Cli, Command, ModelArgs};
use crate::interrupt::{self, Running};
use crate::open::{self, Need};
use crate::screen::Screen;

/// Runs the command.
pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode> {
    let keys = args.access.api_key_file.as_deref();
    let keys = keys.map(ApiKeys::from_file).transpose()?;
    let opened = open::open(&args.model)?;
    let need = Need {
        streams: args.limits.streams,
        ..Need::one(&args.thinking)
    };
    let model = opened.model.clone();
    let options = Options {
        host: args.host.clone(),
        port: args.port,
        model: args
            .model_name
            .clone()
            .unwrap_or_else(|| last_part(&opened.name)),
        adapter: args
            .adapter_name
            .clone()
            .unwrap_or_else(|| adapter_name(&args.model)),
        aliases: args.alias.clone(),
        keys: keys.unwrap_or_default(),
        adapter_root: args.access.adapter_root.clone(),
        origins: args.access.cors.clone(),
        hosts: args.access.allow_host.clone(),
        limits: Limits {
            queue: args.limits.queue,
            max_n: args.limits.max_n.into(),
            max_tokens: args.thinking.max_tokens,
            body_bytes: args.limits.body_limit,
            deadline: Duration::from_secs(args.limits.deadline),
            drain: Duration::from_secs(args.limits.drain),
        },
    };
    if options.keys.is_empty() && !is_loopback(&options.host) {
        tell(
            "note: anyone who reaches this address can use the model; --api-key-file asks for keys",
        );
    }
    let reasoner = open::reasoner(opened, &args.engine, &args.thinking, &need)?;
    let nothing = Input::Raw(String::new());
    let defaults = open::query(&reasoner, nothing, &args.thinking, &args.sampling);
    let server = Server::start(reasoner, model, defaults, options)?;
    let running = Running::start();
    let ready = |address| tell(&format!("listening on http://{address}"));
    server.run(interrupt::pressed, ready)?;
    drop(running);
    tell("every request is answered; done");
    Ok(ExitCode::SUCCESS)
}

fn tell(text: &str) {
    eprintln!("{}", Screen::stderr().dim(text));
}

fn is_loopback(host: &str) -> bool {
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The name of a file or directory; a hub id stays whole.
fn last_part(model: &str) -> String {
    let path = Path::new(model);
    let name = path.file_name().filter(|_| path.exists());
    name.map_or(model.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn adapter_name(args: &ModelArgs) -> String {
    args.adapter
        .as_deref()
        .map_or("adapter".to_owned(), last_part)
}

/// The command line, with the config file of `serve` behind flags and environment.
pub(crate) fn parse() -> Result<Cli> {
    let cli = Cli::parse();
    let Command::Serve(args) = &cli.command else {
        return Ok(cli);
    };
    let Some(path) = &args.config else {
        return Ok(cli);
    };
    let unusable = || format!("cannot use the config file {}", path.display());
    let text = std::fs::read_to_string(path).with_context(unusable)?;
    let program = with_settings(Cli::command(), &text).with_context(unusable)?;
    let matches = program.get_matches();
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}

/// `program` with the settings of a TOML text as the defaults of `serve`: clap then lets flags and environment win.
fn with_settings(program: Program, text: &str) -> Result<Program> {
    let settings: toml::Table = text.parse()?;
    let mut program = program;
    for (key, value) in settings {
        let id = key.replace('-', "_");
        let serve = program.find_subcommand("serve");
        let known = |serve: &Program| {
            let mut own = serve.get_arguments();
            own.any(|arg| arg.get_id() == id.as_str() && id != "config")
        };
        if !serve.is_some_and(known) {
            bail!("{key:?} is no setting; the flags of `edgethink serve --help` are");
        }
        let values = texts(&value).with_context(|| {
            format!("{key} must be a text, a number, true or false, or a list of texts")
        })?;
        program = program.mut_subcommand("serve", |serve| {
            serve.mut_arg(&id, |arg| arg.default_values(values))
        });
    }
    Ok(program)
}

/// A value as it would stand on the command line.
fn texts(value: &toml::Value) -> Option<Vec<String>> {
    use toml::Value;
    Some(match value {
        Value::String(text) => vec![text.clone()],
        Value::Integer(number) => vec![number.to_string()],
        Value::Float(number) => vec![number.to_string()],
        Value::Boolean(on) => vec![on.to_string()],
        Value::Array(list) => list.iter().map(texts).collect::<Option<Vec<_>>>()?.concat(),
        Value::Datetime(_) | Value::Table(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(config: &str, flags: &[&str]) -> ServeArgs {
        let program = with_settings(Cli::command(), config).expect("settings");
        let args = ["edgethink", "serve"].iter().chain(flags);
        let matches = program.try_get_matches_from(args).expect("arguments");
        let cli = Cli::from_arg_matches(&matches).expect("a command line");
        match cli.command {
            Command::Serve(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_win_over_the_config_file() {
        let config = "port = 9000\nthink = \"off\"\nqueue = 3\noffline = true\ncors = [\"https://a.example\", \"https://b.example\"]\ntemperature = 0.5";
        let args = serve(config, &["--port", "9001"]);
        assert_eq!((args.port, args.limits.queue), (9001, 3));
        assert!(args.model.offline);
        assert_eq!(args.access.cors, ["https://a.example", "https://b.example"]);
        assert_eq!(args.sampling.temperature, Some(0.5));
        assert_eq!(
            serve("alias = \"a=b\"", &[]).alias,
            [("a".into(), "b".into())]
        );
        assert_eq!(serve("", &[]).port, 8080);
    }

    #[test]
    fn what_is_no_setting_is_refused_by_name() {
        for (config, says) in [
            ("prot = 1", "\"prot\" is no setting"),
            ("config = \"other.toml\"", "\"config\" is no setting"),
            ("port = {a = 1}", "port must be"),
        ] {
            let error = with_settings(Cli::command(), config).expect_err("refused");
            assert!(format!("{error:#}").contains(says), "{config}: {error:#}");
        }
        let program = with_settings(Cli::command(), "port = 70000").expect("a known key");
        let found = program.try_get_matches_from(["edgethink", "serve"]);
        assert!(found.is_err_and(|error| error.to_string().contains("70000")));
    }
}
