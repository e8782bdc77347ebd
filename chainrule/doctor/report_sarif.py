"""A report as SARIF 2.1.0 (OASIS 2020), which editors and code hosts show beside the lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chainrule.core.node import Origin

from .finding import Finding
from .report import Report
from .rule import RULES

SCHEMA = ("https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/"
          "sarif-schema-2.1.0.json")
LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def sarif_of(report: Report) -> str:
    """The log as JSON: one run, the rules that found something, one result for each finding."""
    used = sorted({f.rule for f in report.findings})
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "chainrule doctor",
                                "rules": [_described(id) for id in used]}},
            "invocations": [_invocation(report)],
            "columnKind": "unicodeCodePoints",
            "results": [_result(f, used.index(f.rule)) for f in report.findings],
        }],
    }
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def _invocation(report: Report) -> dict[str, Any]:
    """Did the program reach its end, and the doctor too? If not, why, and at which line."""
    told: list[dict[str, Any]] = []
    if report.stopped is not None:
        stopped = report.stopped
        notification: dict[str, Any] = {
            "level": "error", "message": {"text": stopped.sentence()},
            "exception": {"kind": stopped.type, "message": stopped.message}}
        if stopped.place.file and not stopped.place.file.startswith("<"):
            notification["locations"] = [_location(stopped.place)]
        told.append(notification)
    if report.exit_code:
        said = f": {report.exit_message}" if report.exit_message else ""
        told.append({"level": "error", "message": {
            "text": f"the program ended with exit code {report.exit_code}{said}"}})
    if report.run.failure is not None:
        told.append({"level": "error", "message": {
            "text": f"the doctor itself failed and stopped watching: {report.run.failure!r}"}})
    invocation: dict[str, Any] = {"executionSuccessful": not told}
    if report.program:
        invocation["commandLine"] = f"chainrule doctor {report.program}"
    if told:
        invocation["toolExecutionNotifications"] = told
    return invocation


def _described(id: str) -> dict[str, Any]:
    rule = RULES.get(id)
    if rule is None:
        return {"id": id}
    return {"id": id, "shortDescription": {"text": rule.title},
            "fullDescription": {"text": rule.page},
            "help": {"text": f"{rule.page}\n\ncured:\n\n{rule.cured}"}}


def _result(f: Finding, index: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": f.rule, "ruleIndex": index, "level": LEVELS[f.severity],
        "message": {"text": f"{f.what} {f.why}\ncure:\n{f.cure}"},
    }
    if f.place.file:
        location = _location(f.place)
        if f.subject:
            location["logicalLocations"] = [{"fullyQualifiedName": f.subject}]
        result["locations"] = [location]
    return result


def _location(place: Origin) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(place.file)}}
    if place.line > 0:
        physical["region"] = {"startLine": place.line}
    return {"physicalLocation": physical}


def _uri(file: str) -> str:
    """Relative to where the program runs, if it lies below: so that a code host finds it."""
    path = Path(file).resolve()
    here = Path.cwd()
    if path.is_relative_to(here):
        return quote(path.relative_to(here).as_posix())
    return path.as_uri()
