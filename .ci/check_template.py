"""Finds errors that CloudFormation or API Gateway reject, and that `sam validate --lint` misses.

Run it with the Python that has the SAM CLI; it makes no network calls. It translates each template
as AWS does and reports:

- resources that refer to each other in a circle: CloudFormation cannot order them;
- routes that end in a slash: an HTTP API ignores them, and so does the SAM CLI;
- more resources than CloudFormation accepts in one stack;
- log groups without retention, and functions without a log group of their own;
- if the template has a dashboard: a body that is not JSON, functions or alarms that are not on it,
  functions that are not in exactly one alarm for errors and one for throttles, alarms with too many
  metrics or without a recipient.
"""

import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

BASIC_ROLE = "AWSLambdaBasicExecutionRole"
TRACING_POLICY = "AWSXrayWriteOnlyAccess"
MAX_RESOURCES = 500
MAX_METRICS = 10  # of one alarm
WATCHED = ("Errors", "Throttles")  # metrics of every function that an alarm watches
SHOWN = (*WATCHED, "Duration", "ConcurrentExecutions")  # metrics of every function on the dashboard


def translated(path):
    """The CloudFormation template that SAM generates from a template."""
    template = yaml_parse(Path(path).read_text())
    for parameter in template.get("Parameters", {}).values():
        parameter.setdefault("Default", "")  # the translator needs a value, whatever it is
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        uri = str(properties.get("CodeUri", "s3://"))
        if resource["Type"] == "AWS::Serverless::Function" and not uri.startswith("s3://"):
            properties["CodeUri"] = "s3://bucket/key"  # as `sam package` does
    policies = {
        BASIC_ROLE: f"arn:aws:iam::aws:policy/service-role/{BASIC_ROLE}",
        TRACING_POLICY: f"arn:aws:iam::aws:policy/{TRACING_POLICY}",
    }
    return Translator(policies, Parser()).translate(template, {})


def references(value):
    """The names that a part of a template refers to, resources and parameters alike."""
    if isinstance(value, list):
        return set().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    found = set()
    for key, part in value.items():
        if key in ("Ref", "DependsOn"):
            found.update([part] if isinstance(part, str) else part)
        elif key == "Fn::GetAtt":
            found.add((part if isinstance(part, str) else part[0]).split(".")[0])
        elif key == "Fn::Sub":
            text, names = (part, {}) if isinstance(part, str) else part
            found.update(name.split(".")[0] for name in re.findall(r"\$\{([^!}]+)\}", text))
            found |= references(names)
        else:
            found |= references(part)
    return found


def circles(resources):
    """Each circle of references, as the names along it."""
    after = {name: sorted(references(resource) & resources.keys()) for name, resource in resources.items()}
    done, found = set(), []

    def follow(name, path):
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for other in after[name]:
                follow(other, [*path, name])
            done.add(name)

    for name in after:
        follow(name, [])
    return found


def slashed_routes(resources):
    """The routes of HTTP APIs that end in a slash."""
    for resource in resources.values():
        if resource["Type"] == "AWS::ApiGatewayV2::Api":
            paths = resource["Properties"].get("Body", {}).get("paths", {})
            yield from (path for path in paths if path.endswith("/") and path != "/")


def of_type(resources, kind):
    """The properties of all resources of a type, by name."""
    return {name: resource["Properties"] for name, resource in resources.items() if resource["Type"] == kind}


def log_faults(resources):
    """Log groups that keep logs forever, and functions that share a log group or let Lambda create
    one."""
    groups = of_type(resources, "AWS::Logs::LogGroup")
    yield from (
        f"a log group without retention: {name}" for name, group in groups.items() if not group.get("RetentionInDays")
    )
    users = Counter()
    for name, function in of_type(resources, "AWS::Lambda::Function").items():
        group = function.get("LoggingConfig", {}).get("LogGroup", {}).get("Ref")
        users[group] += 1
        if group not in groups:
            yield f"a function without a log group of its own: {name}"
    yield from (
        f"a log group of several functions: {group}" for group, count in users.items() if group in groups and count > 1
    )


def resolved(value):
    """A string of a template, in which each reference is replaced by the name that it refers to."""
    if isinstance(value, str):
        return value
    ((function, argument),) = value.items()
    if function == "Ref":
        return argument
    if function == "Fn::GetAtt":
        return argument if isinstance(argument, str) else ".".join(argument)
    if function in ("Fn::If", "Fn::Select", "Fn::Split"):  # conditions hold, and parts count as the whole
        return resolved(argument[1])
    if function == "Fn::Join":
        separator, parts = argument
        return separator.join(map(resolved, parts))
    if function == "Fn::Sub":
        text, names = (argument, {}) if isinstance(argument, str) else argument
        return re.sub(r"\$\{([^}]+)\}", lambda match: resolved(names.get(match[1], match[1])), text)
    raise ValueError(f"{function} is not expected here")


def metrics_of(alarm):
    """What an alarm looks at: the namespace, the metric and the dimensions of each of its
    metrics."""
    metrics = (
        [query["MetricStat"]["Metric"] for query in alarm["Metrics"] if "MetricStat" in query]
        if "Metrics" in alarm
        else [alarm]
    )
    for metric in metrics:
        dimensions = {dimension["Name"]: resolved(dimension["Value"]) for dimension in metric.get("Dimensions", [])}
        yield resolved(metric["Namespace"]), metric["MetricName"], dimensions


def alarm_faults(functions, alarms, topics):
    """Alarms that CloudWatch rejects or that notify nobody, and functions that are not in one alarm
    of each kind."""
    watching = {(name, metric): [] for name in functions for metric in WATCHED}  # the alarms of each
    for name, alarm in alarms.items():
        if not any(action.get("Ref") in topics for action in alarm.get("AlarmActions", [])):
            yield f"an alarm that notifies nobody: {name}"
        metrics = list(metrics_of(alarm))
        if len(metrics) > MAX_METRICS:
            yield f"an alarm with {len(metrics)} metrics, more than {MAX_METRICS}: {name}"
        # An alarm that mixes metrics, as that of the authorizer does, comes on top.
        if len({metric for _, metric, _ in metrics}) == 1:
            for namespace, metric, dimensions in metrics:
                key = (dimensions.get("FunctionName"), metric)
                if namespace == "AWS/Lambda" and key in watching:
                    watching[key].append(name)
    for (name, metric), found in watching.items():
        if len(found) != 1:
            named = ", ".join(found) or "none"
            yield f"a function that is not in exactly one alarm for its {metric}: {name}, in {named}"


def dashboard_faults(name, dashboard, functions, alarms):
    """What a dashboard does not show."""
    try:
        widgets = json.loads(resolved(dashboard["DashboardBody"]))["widgets"]
    except ValueError as error:
        yield f"a dashboard whose body is not JSON: {name}: {error}"
        return
    listed = {arn.split(".")[0] for widget in widgets for arn in widget["properties"].get("alarms", [])}
    yield from (f"an alarm that is not on the dashboard {name}: {alarm}" for alarm in sorted(alarms.keys() - listed))
    shown = {}  # the functions of each metric
    for widget in widgets:
        metrics = widget["properties"].get("metrics", [[]])
        if metrics[0][:1] == ["AWS/Lambda"] and metrics[0][2] == "FunctionName":
            in_order = [metrics[0][-1], *(metric[-1] for metric in metrics[1:] if metric[0] == "...")]
            shown[metrics[0][1]] = Counter(in_order)
    for metric in SHOWN:
        counts = shown.get(metric, Counter())
        for one in sorted(functions.keys() | counts.keys()):
            if counts[one] != 1 or one not in functions:
                yield f"a function that is on the dashboard {name} {counts[one]} times for its {metric}: {one}"


def monitoring_faults(resources):
    """What nobody would notice, in a template that has a dashboard."""
    functions, alarms = of_type(resources, "AWS::Lambda::Function"), of_type(resources, "AWS::CloudWatch::Alarm")
    dashboards = of_type(resources, "AWS::CloudWatch::Dashboard")
    if dashboards:
        yield from alarm_faults(functions, alarms, of_type(resources, "AWS::SNS::Topic"))
    for name, dashboard in dashboards.items():
        yield from dashboard_faults(name, dashboard, functions, alarms)


def main():
    """Checks the given templates and returns the exit code."""
    faults = 0
    for path in sys.argv[1:] or ["template.yaml"]:
        resources = translated(path)["Resources"]
        found = [f"a circle of references: {' -> '.join(circle)}" for circle in circles(resources)]
        found += [f"a route that ends in a slash: {route}" for route in slashed_routes(resources)]
        found += [*log_faults(resources), *monitoring_faults(resources)]
        found += [f"{len(resources)} resources, more than {MAX_RESOURCES}"] if len(resources) > MAX_RESOURCES else []
        faults += len(found)
        for fault in found:
            print(f"{path}: {fault}")
        if not found:
            print(f"{path}: ok, {len(resources)} of {MAX_RESOURCES} resources")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
