"""The commands: serve, demo, probe, check-config, baseline, report."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from joulemeter.config import Config, load, with_overrides
from joulemeter.errors import ConfigError, JoulemeterError

EXIT_OK = 0
"""Done, or stopped by SIGTERM or SIGINT."""
EXIT_FAILED = 1
"""It failed, and said why; or `probe` found nothing to attribute."""
EXIT_USAGE = 2
"""The command line or the configuration is wrong; every problem is named."""

DESCRIPTION = """\
Prometheus exporter that attributes the energy of a node's GPUs to the models, phases and servers that used it.
Every joule the hardware reports is on the page exactly once. GPU boards only: no CPU, memory, network or host.
"""
EPILOG = """\
exit status: 0 done; 1 it failed, or probe found nothing to attribute; 2 usage or configuration
environment: JOULEMETER_NVML_LIBRARY names an NVML library to load in place of the driver's
"""
SERVE_EPILOG = """\
examples:
  joulemeter serve                                   one GPU box: looks for a server on the usual ports
  joulemeter serve --server http://127.0.0.1:8000    a vLLM server, its GPUs found from its process
  joulemeter serve --config /etc/joulemeter.yaml

Then: curl http://127.0.0.1:9847/metrics
"""
BASELINE_EPILOG = """\
  list               what is learned and frozen here, by id
  export [ID...]     write frozen ones to standard output: for new nodes, as baseline.file or for import
  import FILE        use a file's baselines from now on, in place of those of the same models
  accept ID          what is measured from now on is the new normal: learn anew, under a new id
  reset ID|all       forget, whether the model still runs here or not

A running daemon takes a change within seconds; its series get the new id, and the old ones end.

examples:
  joulemeter baseline list --config /etc/joulemeter.yaml
  joulemeter baseline export --state-dir /var/lib/joulemeter > baselines.json
"""
REPORT_EPILOG = """\
Energy is that of GPU boards. Rows add up to what the GPUs measured: models, energy of no model by reason, and
what is not covered. Increases are taken from raw samples, never extrapolated. A range begins with the last sample
before it, so that months add up to the year. `--format table` needs: pip install 'joulemeter[report]'

examples:
  joulemeter report --prometheus http://127.0.0.1:9090 --month 2026-10 --timezone Europe/Berlin
  joulemeter report --prometheus http://127.0.0.1:9090 --since 24h --selector 'cluster="a"' --format csv
  joulemeter report --prometheus http://127.0.0.1:9090 --rate-prompt 0.5 --rate-generation 2.5 --sell-per-kwh 4
"""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    main_parser = argparse.ArgumentParser(
        "joulemeter",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main_parser.add_argument("--version", action="version", version=f"joulemeter {version('joulemeter')}")
    commands = main_parser.add_subparsers(title="commands", dest="command", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, epilog: str = ""
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    serve = command("serve", _serve, "measure, attribute and serve the page until SIGTERM", SERVE_EPILOG)
    _add_configuration(serve)
    serve.add_argument(
        "--listen", metavar="HOST:PORT", help="where to serve the page (default: 0.0.0.0:9847)"
    )
    demo = command(
        "demo",
        _demo,
        "the same daemon on a simulated node: four virtual GPUs, three virtual vLLM servers; all marked simulated",
    )
    demo.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:9847",
        help="where to serve the page (default: %(default)s)",
    )
    demo.add_argument(
        "--seconds", type=float, metavar="N", help="stop after N seconds (default: until interrupted)"
    )
    probe = command(
        "probe",
        _probe,
        "one look: GPUs, servers, which uses which, the grid factor, what is missing and how to mend it",
    )
    _add_configuration(probe)
    check = command("check-config", _check_config, "report every problem of a configuration file at once")
    check.add_argument("file", type=Path, metavar="FILE")
    baseline = command(
        "baseline",
        _baseline,
        "the frozen baselines of the regression signal: list|export|import|accept|reset",
        BASELINE_EPILOG,
    )
    baseline.add_argument("do", choices=("list", "export", "import", "accept", "reset"))
    baseline.add_argument("what", nargs="*", metavar="ID|FILE", help="which baselines, or the file to import")
    place = baseline.add_mutually_exclusive_group(required=True)
    place.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
    place.add_argument("--state-dir", type=Path, metavar="DIR", help="the daemon's state directory")
    _add_report(
        command("report", _report, "energy, tokens, cost and CO2e by model, from Prometheus", REPORT_EPILOG)
    )
    return main_parser


def _add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--prometheus", required=True, metavar="URL", help="a Prometheus, or what serves its API"
    )
    command.add_argument("--month", metavar="YYYY-MM", help="a month (default: the last whole one)")
    command.add_argument("--from", dest="begin", metavar="TIME", help="2026-10-01 or 2026-10-01T08:00")
    command.add_argument("--to", dest="end", metavar="TIME", help="the end (default: now)")
    command.add_argument(
        "--since", metavar="30d", help="the last minutes (m), hours (h), days (d) or weeks (w)"
    )
    command.add_argument(
        "--timezone",
        default="UTC",
        metavar="TZ",
        help="of months and times, e.g. Europe/Berlin (default: UTC)",
    )
    command.add_argument(
        "--selector",
        action="append",
        default=[],
        metavar="MATCHERS",
        help="which exporters, e.g. 'cluster=\"a\"'; may be repeated",
    )
    command.add_argument(
        "--http-config",
        type=Path,
        metavar="FILE",
        help="basic_auth, authorization, tls_config, as Prometheus's",
    )
    command.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    for option, of in (
        ("--rate-prompt", "a million computed prompt tokens"),
        ("--rate-cached-prompt", "a million cached prompt tokens (default: as computed ones)"),
        ("--rate-generation", "a million generated tokens"),
        ("--sell-per-kwh", "a kWh of GPU energy, to compare with the rates of tokens"),
    ):
        command.add_argument(option, type=float, metavar="PRICE", help=f"price of {of}")


def _add_configuration(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE", help="YAML configuration; flags override it")
    command.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="URL",
        help="an inference server, e.g. http://127.0.0.1:8000; may be repeated",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        for problem in error.problems:
            _say_error(problem)
        return EXIT_USAGE
    except JoulemeterError as error:
        _say_error(str(error))
        return EXIT_FAILED
    except BaseExceptionGroup as group:
        ours, bugs = group.split(JoulemeterError)
        if bugs is not None or ours is None:
            raise
        for failure in _leaves(ours):
            _say_error(str(failure))
        return EXIT_FAILED


def _leaves(group: BaseExceptionGroup[JoulemeterError]) -> list[BaseException]:
    """Every single error in a tree of groups."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _say_error(message: str) -> None:
    print(f"joulemeter: {message}", file=sys.stderr)


def _config(options: argparse.Namespace) -> Config:
    text = ""
    if options.config is not None:
        text = _read(options.config)
    listen = getattr(options, "listen", None)
    return with_overrides(load(text, source=str(options.config)), options.server, listen)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error


def _serve(options: argparse.Namespace) -> int:
    from joulemeter.runtime.daemon import run_daemon

    asyncio.run(run_daemon(_config(options)))
    return EXIT_OK


def _demo(options: argparse.Namespace) -> int:
    from joulemeter.simulation.demo import run_demo

    run_demo(options.listen, options.seconds)
    return EXIT_OK


def _probe(options: argparse.Namespace) -> int:
    from joulemeter.runtime.probe import probe

    logging.getLogger().setLevel(logging.ERROR)  # the report says it all
    report, attributes = asyncio.run(probe(_config(options)))
    print(report)
    return EXIT_OK if attributes else EXIT_FAILED


def _check_config(options: argparse.Namespace) -> int:
    config = load(_read(options.file), source=str(options.file))
    said = [f"{options.file}: ok"]
    if config.web_config_file is not None:
        from joulemeter.runtime.web_access import WebAccess

        place = f"web_config_file {config.web_config_file}"
        said += [f"{place}: {note}" for note in (*WebAccess(config.web_config_file).notes, "ok")]
    print("\n".join(said))
    return EXIT_OK


def _baseline(options: argparse.Namespace) -> int:
    from joulemeter.runtime import baseline_command as command
    from joulemeter.runtime.state import StateDirectory

    logging.getLogger().setLevel(logging.WARNING)
    config = Config() if options.config is None else load(_read(options.config), source=str(options.config))
    path = options.state_dir or config.state_dir
    if path is None:
        raise ConfigError(
            [f"{options.config}: no state_dir, so nothing is kept; set it, or give --state-dir"]
        )
    needed = {"list": (0, 0), "export": (0, sys.maxsize)}.get(options.do, (1, 1))
    if not needed[0] <= len(options.what) <= needed[1]:
        raise ConfigError([f"baseline {options.do}: see `joulemeter baseline --help` for what follows it"])
    state, days = StateDirectory(path), config.baseline.learn_days
    if options.do == "list":
        print("\n".join(command.listed(state, days)))
    elif options.do == "export":
        print(command.exported(state, options.what), end="")
    else:
        (what,) = options.what
        importing = options.do == "import"
        request = command.import_request(Path(what)) if importing else {"do": options.do, "id": what}
        print(command.change(state, request, days * command.DAY_SECONDS))
    return EXIT_OK


def _report(options: argparse.Namespace) -> int:
    from joulemeter.report.offer import Rates, checked
    from joulemeter.runtime.report_command import Question, reported

    rates = Rates(
        options.rate_prompt, options.rate_cached_prompt, options.rate_generation, options.sell_per_kwh
    )
    question = Question(
        options.prometheus,
        options.selector,
        options.http_config,
        options.timezone,
        options.month,
        options.begin,
        options.end,
        options.since,
        checked(rates),
        options.format,
    )
    text, notes = asyncio.run(reported(question))
    print(text, end="")
    for note in notes:
        print(note, file=sys.stderr)
    return EXIT_OK
