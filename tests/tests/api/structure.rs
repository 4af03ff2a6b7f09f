//! The house is in order: each endpoint has one name, and is there under it as folder, crate, binary, function of the
//! template, OpenAPI operation, event and entry of the coverage table. A function that runs on a schedule has no route
//! and no OpenAPI operation, but everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shared::permissions::Operation;
use shared::store::tokens::Inactive;
use tests::Service;
use tests::coverage::{COVERED, Guard};
use tests::table::{INSTALLATIONS, TABLE, text};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of what is in a folder, without hidden things.
fn entries(path: impl AsRef<Path>) -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join(path)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// `<resource>-<action>` of every folder `functions/<resource>/<action>`.
fn folders() -> BTreeMap<String, String> {
    let mut folders = BTreeMap::new();
    for resource in entries("functions") {
        for action in entries(format!("functions/{resource}")) {
            folders.insert(format!("{resource}-{action}"), format!("functions/{resource}/{action}"));
        }
    }
    folders
}

/// The names that everything is held against: those of the permission table.
fn operations() -> BTreeSet<String> {
    Operation::ALL.iter().map(|operation| operation.name().to_owned()).collect()
}

/// `org-user-tokens-issue` as CloudFormation's resources are named: `OrgUserTokensIssue`.
fn in_pascal_case(name: &str) -> String {
    name.split('-').map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..])).collect()
}

/// The functions of the template: their names in it, and themselves.
pub(crate) fn functions() -> BTreeMap<String, Value> {
    let template: Value = serde_saphyr::from_str(&read("template.yaml")).unwrap();
    let resources = template["Resources"].as_object().unwrap().iter();
    let functions = resources.filter(|(_, resource)| text(resource, "Type") == "AWS::Serverless::Function");
    functions.map(|(name, function)| (name.clone(), function.clone())).collect()
}

/// What invokes a function, of this type of event.
fn events<'a>(function: &'a Value, kind: &str) -> Vec<&'a Value> {
    let events = function["Properties"]["Events"].as_object().into_iter().flat_map(|events| events.values());
    events.filter(|event| event["Type"] == kind).collect()
}

/// The routes of a function: method and path, both `$default` for the one that takes what is left.
pub(crate) fn routes(function: &Value) -> BTreeSet<(String, String)> {
    let routes = events(function, "HttpApi").into_iter().map(|event| {
        let part = |name: &str| event["Properties"][name].as_str().unwrap_or("$default").to_owned();
        (part("Method"), part("Path"))
    });
    routes.collect()
}

/// The operations of the OpenAPI document: method and path, and `operationId`.
fn documented() -> BTreeMap<(String, String), String> {
    let document: Value = serde_json::from_str(&read("openapi.json")).unwrap();
    let mut documented = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = text(operation, "operationId").to_owned();
            documented.insert((method.to_uppercase(), path.clone()), id);
        }
    }
    documented
}

#[test]
fn every_operation_has_a_folder() {
    assert_eq!(folders().into_keys().collect::<BTreeSet<_>>(), operations());
}

#[test]
fn every_folder_is_a_crate_with_its_binary_and_in_the_local_service() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap();
    let package = |name: &str| metadata.packages.iter().find(|package| package.name.as_str() == name);
    let local: BTreeSet<&str> =
        package("local").unwrap().dependencies.iter().map(|dependency| dependency.name.as_str()).collect();
    let mut crates = BTreeSet::new();
    for (name, folder) in folders() {
        let package = package(&name).unwrap_or_else(|| panic!("{folder} is no crate called {name}"));
        assert_eq!(package.manifest_path, root().join(&folder).join("Cargo.toml"));
        let binaries = package.targets.iter().filter(|target| target.is_bin());
        assert_eq!(binaries.map(|target| target.name.as_str()).collect::<Vec<_>>(), [&name]);
        assert!(local.contains(name.as_str()), "{name} is no part of the local service");
        crates.insert(package.manifest_path.clone());
    }
    let in_functions = metadata.packages.iter().map(|package| &package.manifest_path);
    let in_functions: BTreeSet<_> =
        in_functions.filter(|path| path.starts_with(root().join("functions"))).cloned().collect();
    assert_eq!(in_functions, crates);
}

#[test]
fn every_main_is_a_single_call() {
    for folder in folders().values() {
        let main = read(format!("{folder}/src/main.rs"));
        let calls = main.lines().filter(|line| line.starts_with("    ")).count();
        assert_eq!(calls, 1, "{folder}/src/main.rs: {main}");
    }
}

#[test]
fn every_operation_is_in_the_template() {
    let functions = functions();
    let names: BTreeSet<String> = operations().iter().map(|name| in_pascal_case(name)).collect();
    assert_eq!(functions.keys().cloned().collect::<BTreeSet<_>>(), names);
    for (name, folder) in folders() {
        let function = &functions[&in_pascal_case(&name)];
        assert_eq!(function["Properties"]["CodeUri"], folder.as_str(), "{name}");
        assert_eq!(function["Metadata"]["BuildProperties"]["Binary"], name.as_str(), "{name}");
    }
}

#[test]
fn template_routes_match_the_coverage_table() {
    for operation in Operation::ALL {
        let name = operation.name();
        let found = routes(&functions()[&in_pascal_case(name)]);
        if operation.rule().console {
            // A page tells its paths and methods apart by itself.
            let page = COVERED.iter().find(|covered| covered.operation == *operation).unwrap();
            let page = page.path.replace("{file}", "{proxy+}");
            assert!(found.iter().any(|(_, path)| *path == page), "{name}: {found:?}");
            assert!(found.iter().all(|(_, path)| path == "/" || path.starts_with("/console")), "{name}: {found:?}");
            assert!(found.iter().all(|(method, _)| method == "ANY"), "{name}: {found:?}");
            continue;
        }
        let entries = COVERED.iter().filter(|covered| covered.operation == *operation);
        let mut expected = BTreeSet::new();
        for covered in entries.filter(|covered| covered.guard.has_route()) {
            let (method, path) = (covered.method.as_str().to_owned(), covered.path);
            if covered.guard == Guard::Registry && method == "GET" {
                // Names of packages have slashes: the function tells its paths apart, and its methods.
                let (root, _) = path[1..].split_once('/').unwrap();
                expected.insert(("ANY".to_owned(), format!("/{root}/{{proxy+}}")));
                continue;
            }
            if covered.success == 404 {
                expected.insert(("$default".to_owned(), "$default".to_owned()));
                continue;
            }
            expected.insert((method.clone(), path.trim_end_matches('/').to_owned()));
            // With the slash at its end: API Gateway knows no such route, so one above it catches it.
            if let Some((above, _)) = path.strip_suffix('/').and_then(|path| path.rsplit_once('/')) {
                expected.insert((method, format!("{above}/{{proxy+}}")));
            }
        }
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn functions_run_on_a_schedule_or_have_routes() {
    for covered in COVERED {
        let name = covered.operation.name();
        let function = &functions()[&in_pascal_case(name)];
        let count = function["Properties"]["Events"].as_object().map_or(0, |events| events.len());
        let (routes, schedules) = (events(function, "HttpApi"), events(function, "Schedule"));
        assert_eq!(count, routes.len() + schedules.len(), "{name} is invoked by something else");
        assert_eq!(!routes.is_empty(), covered.guard.has_route(), "{name}");
        assert_eq!(schedules.len(), usize::from(covered.guard == Guard::Schedule), "{name}");
        if let [schedule] = schedules[..] {
            assert!(schedule["Properties"]["Schedule"].is_string(), "{name}");
            // Nobody would miss it.
            let alarm = &resources("AWS::CloudWatch::Alarm")[&format!("{}NotRun", in_pascal_case(name))];
            let dimensions = json!([{"Name": "FunctionName", "Value": in_pascal_case(name)}]);
            assert_eq!((&alarm["MetricName"], &alarm["Dimensions"]), (&json!("Invocations"), &dimensions), "{name}");
            assert_eq!(alarm["TreatMissingData"], "breaching", "{name}");
        }
    }
}

#[test]
fn openapi_operations_match_the_coverage_table() {
    let documented = documented();
    let covered = tests::coverage::documented().filter(|covered| covered.success != 404);
    let covered: BTreeMap<(String, String), &str> =
        covered.map(|c| ((c.method.to_string(), c.path.to_owned()), c.operation.name())).collect();
    assert_eq!(documented.keys().collect::<Vec<_>>(), covered.keys().collect::<Vec<_>>());
    let ids: BTreeSet<&String> = documented.values().collect();
    assert_eq!(ids.len(), documented.len(), "an operationId is given twice");
    for (route, name) in &covered {
        // The second method of one function has a name of its own.
        let is_only_one = covered.values().filter(|other| *other == name).count() == 1;
        assert!(documented[route] == *name || !is_only_one && ids.contains(&(*name).to_owned()), "{route:?}");
    }
    // What is at no path has no operation.
    for covered in COVERED.iter().filter(|covered| !covered.guard.has_route() || covered.success == 404) {
        assert!(!ids.contains(&covered.operation.name().to_owned()), "{}", covered.operation.name());
    }
}

#[test]
fn every_operation_has_a_sample_event_for_its_route() {
    let files: BTreeSet<String> = operations().iter().map(|name| format!("{name}.json")).collect();
    assert_eq!(entries("events"), files);
    for covered in COVERED {
        let name = covered.operation.name();
        let event: Value = serde_json::from_str(&read(format!("events/{name}.json"))).unwrap();
        if covered.guard == Guard::Schedule {
            assert_eq!((&event["source"], &event["detail-type"]), (&json!("aws.events"), &json!("Scheduled Event")));
            continue;
        }
        assert_eq!(event["version"], "2.0", "{name}");
        assert_eq!(event["routeKey"], event["requestContext"]["routeKey"], "{name}");
        assert_eq!(event["rawPath"], event["requestContext"]["http"]["path"], "{name}");
        let mut routes = routes(&functions()[&in_pascal_case(name)]);
        if name == "tokens-authorize" {
            // It is asked about requests on other functions' routes.
            assert_eq!(event["type"], "REQUEST");
            routes = routes_of_all();
        }
        let route_key = text(&event, "routeKey");
        if route_key == "$default" {
            assert_eq!(routes, BTreeSet::from([("$default".to_owned(), "$default".to_owned())]), "{name}");
            continue;
        }
        let (method, path) = route_key.split_once(' ').unwrap();
        assert!(routes.contains(&(method.to_owned(), path.to_owned())), "{name}: {route_key}");
        let called = text(&event["requestContext"]["http"], "method");
        assert!(method == called || method == "ANY", "{name}: {called}");
        let parameters = event["pathParameters"].as_object();
        let filled = parameters.into_iter().flatten().fold(path.to_owned(), |path, (parameter, value)| {
            let value = value.as_str().unwrap();
            path.replace(&format!("{{{parameter}}}"), value).replace(&format!("{{{parameter}+}}"), value)
        });
        assert_eq!(text(&event, "rawPath").trim_end_matches('/'), filled.trim_end_matches('/'), "{name}");
    }
}

fn routes_of_all() -> BTreeSet<(String, String)> {
    functions().values().flat_map(routes).collect()
}

/// The resources of the template of one type, with their names.
fn resources(kind: &str) -> BTreeMap<String, Value> {
    let template: Value = serde_saphyr::from_str(&read("template.yaml")).unwrap();
    let resources = template["Resources"].as_object().unwrap().iter();
    let found = resources.filter(|(_, resource)| text(resource, "Type") == kind);
    found.map(|(name, resource)| (name.clone(), resource["Properties"].clone())).collect()
}

#[test]
fn registry_hosts_have_routes_of_their_registry_and_of_email_tokens_alone() {
    let apis = resources("AWS::ApiGatewayV2::Api");
    assert_eq!(apis.keys().collect::<Vec<_>>(), ["NpmApi", "PypiApi"]);
    let email_tokens = COVERED.iter().filter(|covered| covered.path.starts_with("/api/v1/tokens"));
    let common: BTreeMap<(String, String), String> = email_tokens
        .map(|covered| {
            ((covered.method.to_string(), covered.path.to_owned()), in_pascal_case(covered.operation.name()))
        })
        .chain([(("ANY".to_owned(), "/api/v1/{proxy+}".to_owned()), "DocsNotFound".to_owned())])
        .collect();
    let mut called = BTreeSet::new();
    for (api, registry) in [("NpmApi", "RegistryNpm"), ("PypiApi", "RegistryPypi")] {
        let mut expected = common.clone();
        expected.insert(("ANY".to_owned(), "$default".to_owned()), registry.to_owned());
        if registry == "RegistryNpm" {
            let logout = ("DELETE".to_owned(), "/-/user/token/{token}".to_owned());
            expected.insert(logout, "RegistryNpmLogout".to_owned());
        }
        // Without another name there is no way around the host.
        assert_eq!(apis[api]["DisableExecuteApiEndpoint"], true, "{api}");
        let mut found = BTreeMap::new();
        for (path, methods) in apis[api]["Body"]["paths"].as_object().unwrap() {
            for (method, route) in methods.as_object().unwrap() {
                let method = if method == "x-amazon-apigateway-any-method" { "any" } else { method };
                assert_eq!(route.get("isDefaultRoute").is_some(), path == "$default", "{api} {path}");
                let integration = &route["x-amazon-apigateway-integration"];
                assert_eq!(integration["payloadFormatVersion"], "2.0", "{api} {path}");
                assert_eq!(integration["credentials"], "RegistryHostsRole.Arn", "{api} {path}");
                let (_, function) = text(integration, "uri").split_once("/functions/${").unwrap();
                let function = function.strip_suffix(".Arn}/invocations").unwrap();
                found.insert((method.to_uppercase(), path.clone()), function.to_owned());
            }
        }
        assert_eq!(found, expected, "{api}");
        called.extend(found.into_values());
    }
    let role = &resources("AWS::IAM::Role")["RegistryHostsRole"]["Policies"][0]["PolicyDocument"]["Statement"];
    assert_eq!((role.as_array().unwrap().len(), &role[0]["Action"]), (1, &json!("lambda:InvokeFunction")));
    let allowed = role[0]["Resource"].as_array().unwrap().iter().map(|arn| arn.as_str().unwrap().to_owned());
    assert_eq!(allowed.collect::<BTreeSet<_>>(), called.iter().map(|name| format!("{name}.Arn")).collect());
}

#[test]
fn registry_hosts_exist_only_where_they_are_set_and_are_run_like_the_service() {
    let template: Value = serde_saphyr::from_str(&read("template.yaml")).unwrap();
    let service = resources("AWS::Serverless::HttpApi")["HttpApi"].clone();
    for registry in ["Npm", "Pypi"] {
        let of = |suffix: &str| template["Resources"][format!("{registry}{suffix}")].clone();
        for suffix in ["Api", "ApiStage", "Domain", "ApiMapping"] {
            assert_eq!(of(suffix)["Condition"], format!("Has{registry}Host"), "{registry}{suffix}");
        }
        let stage = &of("ApiStage")["Properties"];
        assert_eq!(stage["AccessLogSettings"], service["AccessLogSettings"], "{registry}");
        assert_eq!(stage["DefaultRouteSettings"], service["DefaultRouteSettings"], "{registry}");
        let domain = &of("Domain")["Properties"];
        assert_eq!(domain["DomainName"], format!("{registry}Host"));
        assert_eq!(domain["DomainNameConfigurations"][0]["SecurityPolicy"], "TLS_1_2");
        // What the functions compare the event's domain name with.
        let variable = format!("{}_HOST", registry.to_uppercase());
        let variables = &template["Globals"]["Function"]["Environment"]["Variables"];
        assert_eq!(variables[&variable], format!("{registry}Host"));
        assert_eq!(template["Parameters"][format!("{registry}Host")]["Default"], "");
    }
    assert_eq!(template["Resources"]["RegistryHostsRole"]["Condition"], "HasRegistryHosts");
    let count = template["Resources"].as_object().unwrap().values();
    let count = count.filter(|resource| text(resource, "Type").starts_with("AWS::ApiGatewayV2::")).count();
    assert_eq!(count, 8);
}

/// The folders of `functions/` and the functions of each, as the template names them. An alarm takes
/// ten functions: those of a larger folder are in several groups, such as `Console` and `Console2`.
fn groups() -> BTreeMap<String, Vec<String>> {
    let mut groups = BTreeMap::new();
    for resource in entries("functions") {
        let actions = entries(format!("functions/{resource}"));
        let names = actions.iter().map(|action| in_pascal_case(&format!("{resource}-{action}")));
        for (part, names) in names.collect::<Vec<_>>().chunks(10).enumerate() {
            let number = if part == 0 { String::new() } else { (part + 1).to_string() };
            groups.insert(format!("{}{number}", in_pascal_case(&resource)), names.to_vec());
        }
    }
    groups
}

/// What an alarm watches of every function: its metrics, and the ends of the alarms' names.
const WATCHED: [&str; 2] = ["Errors", "Throttles"];

#[test]
fn every_alarm_is_documented() {
    let operations = read("docs/OPERATIONS.md");
    let mut of_groups = BTreeSet::new();
    for metric in WATCHED {
        assert!(operations.contains(&format!("`<Group>{metric}`")), "{metric}");
        of_groups.extend(groups().keys().map(|group| format!("{group}{metric}")));
    }
    for name in resources("AWS::CloudWatch::Alarm").keys() {
        assert!(of_groups.contains(name) || operations.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_function_is_in_the_two_alarms_of_its_folder() {
    let alarms = resources("AWS::CloudWatch::Alarm");
    for (group, mut expected) in groups() {
        expected.sort();
        for metric in WATCHED {
            let name = format!("{group}{metric}");
            let alarm = alarms.get(&name).unwrap_or_else(|| panic!("there is no alarm {name}"));
            let settings = [
                ("EvaluationPeriods", json!(1)),
                ("Threshold", json!(1)),
                ("ComparisonOperator", json!("GreaterThanOrEqualToThreshold")),
                ("TreatMissingData", json!("notBreaching")),
                ("AlarmActions", json!(["AlarmTopic"])),
            ];
            for (setting, value) in settings {
                assert_eq!(alarm[setting], value, "{name}: {setting}");
            }
            let (sum, queries) = alarm["Metrics"].as_array().unwrap().split_first().unwrap();
            assert_eq!(*sum, json!({"Id": "sum", "Expression": "SUM(FILL(METRICS(), 0))"}), "{name}");
            assert!(queries.len() <= 10, "{name} has more metrics than CloudWatch allows");
            let mut watched = Vec::new();
            for query in queries {
                let function = text(&query["MetricStat"]["Metric"]["Dimensions"][0], "Value");
                let dimensions = json!([{"Name": "FunctionName", "Value": function}]);
                let of_lambda = json!({"Namespace": "AWS/Lambda", "MetricName": metric, "Dimensions": dimensions});
                let sums = json!({"Stat": "Sum", "Period": 300, "Metric": of_lambda});
                assert_eq!(*query, json!({"Id": query["Id"], "ReturnData": false, "MetricStat": sums}), "{name}");
                watched.push(function.to_owned());
            }
            watched.sort();
            assert_eq!(watched, expected, "{name}");
        }
    }
}

#[test]
fn every_function_and_every_alarm_is_on_the_dashboard() {
    let dashboard = resources("AWS::CloudWatch::Dashboard")["Dashboard"]["DashboardBody"].clone();
    // Alarms of a condition are on it if the condition holds.
    let of_audit_events = dashboard[1]["AuditEventsAlarms"][1].as_str().unwrap();
    let body = dashboard[0].as_str().unwrap().replace("${AuditEventsAlarms}", of_audit_events);
    let list = &dashboard[1]["Functions"];
    // Between two names: one metric ends and the next, which differs in the name alone, begins.
    assert_eq!(list[0], "\"], [\"...\", \"");
    let mut listed: Vec<&str> = list[1].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    listed.sort_unstable();
    let functions = functions();
    assert_eq!(listed, functions.keys().map(String::as_str).collect::<Vec<_>>());
    for metric in [WATCHED[0], WATCHED[1], "Duration", "ConcurrentExecutions"] {
        let metrics = format!(r#"["AWS/Lambda", "{metric}", "FunctionName", "${{Functions}}"]"#);
        assert_eq!(body.matches(metrics.as_str()).count(), 1, "{metric}");
    }
    for alarm in resources("AWS::CloudWatch::Alarm").keys() {
        assert!(body.contains(&format!("\"${{{alarm}.Arn}}\"")), "{alarm}");
    }
}

#[test]
fn every_function_has_its_log_group_with_retention() {
    let groups = resources("AWS::Logs::LogGroup");
    for (name, function) in functions() {
        let group = format!("{name}Logs");
        assert_eq!(function["Properties"]["LoggingConfig"]["LogGroup"], group.as_str(), "{name}");
        assert!(groups.contains_key(&group), "{group}");
    }
    for (name, group) in groups {
        assert_eq!(group["RetentionInDays"], "LogRetentionDays", "{name}");
    }
}

/// A new account's quota is too small to reserve anything of it.
#[test]
fn concurrency_is_reserved_for_authorizer_and_registries_only_if_set() {
    let template: Value = serde_saphyr::from_str(&read("template.yaml")).unwrap();
    for (name, function) in functions() {
        let parameter = match name.as_str() {
            "TokensAuthorize" => "AuthorizerConcurrency",
            "RegistryNpm" | "RegistryPypi" => "RegistryConcurrency",
            _ => {
                assert!(function["Properties"].get("ReservedConcurrentExecutions").is_none(), "{name}");
                continue;
            }
        };
        let condition = format!("Has{parameter}");
        let reserved = json!([condition, parameter, "AWS::NoValue"]);
        assert_eq!(function["Properties"]["ReservedConcurrentExecutions"], reserved, "{name}");
        assert_eq!(template["Parameters"][parameter]["Default"], "", "{parameter}");
        assert!(template["Conditions"].get(&condition).is_some(), "{condition}");
        assert!(read("docs/OPERATIONS.md").contains(&format!("| `{parameter}` | none |")), "{parameter}");
    }
}

#[test]
fn every_metric_filter_matches_a_logged_message() {
    let mut code = String::new();
    for folder in folders().values() {
        code += &read(format!("{folder}/src/lib.rs"));
    }
    for module in [
        "auth.rs",
        "console/guard.rs",
        "leaks.rs",
        "mail.rs",
        "notices.rs",
        "registry/download.rs",
        "reminders.rs",
        "store/mail_limits.rs",
    ] {
        code += &read(format!("shared/src/{module}"));
    }
    let access_log = resources("AWS::Serverless::HttpApi")["HttpApi"]["AccessLogSettings"]["Format"].clone();
    let request_line = read("shared/src/observe.rs");
    let mut looked_at = 0;
    for (name, filter) in resources("AWS::Logs::MetricFilter") {
        let pattern = text(&filter, "FilterPattern");
        for term in pattern.split("$.").skip(1) {
            let (field, value) = term.split_once([' ', '=']).unwrap();
            if field == "message" {
                let message = value.split('"').nth(1).unwrap();
                assert!(code.contains(&format!("\"{message}\"")), "{name}: {message}");
            } else if text(&filter, "LogGroupName") != "AccessLogs" {
                assert!(request_line.contains(&format!(" {field},\n")), "{name}: {field}");
                let reason = value.split('"').nth(1).unwrap();
                let reasons = [Inactive::Revoked, Inactive::Expired, Inactive::Disabled, Inactive::Unknown];
                assert!(reasons.iter().any(|known| <&str>::from(known) == reason), "{name}: {reason}");
            } else {
                assert!(access_log.as_str().unwrap().contains(&format!("\"{field}\":")), "{name}: {field}");
            }
            looked_at += 1;
        }
    }
    assert!(looked_at > 15);
}

#[test]
fn use_of_inactive_tokens_is_counted_wherever_tokens_are_accepted() {
    let filters = resources("AWS::Logs::MetricFilter");
    let counted =
        filters.values().filter(|filter| filter["MetricTransformations"][0]["MetricName"] == "InactiveTokensUsed");
    let counted: BTreeSet<String> = counted.map(|filter| text(filter, "LogGroupName").to_owned()).collect();
    let accepting = Operation::ALL.iter().filter(|operation| {
        let rule = operation.rule();
        // The last one refuses bot tokens.
        let checks =
            matches!(operation, Operation::TokensAuthorize | Operation::TokensIntrospect | Operation::BotsExchange);
        let bots = !rule.roles.is_empty() && !rule.console;
        checks || bots || rule.own_token || rule.scope.is_some() || rule.email_tokens || rule.registry_tokens
    });
    let expected = accepting.map(|operation| format!("{}Logs", in_pascal_case(operation.name()))).collect();
    assert_eq!(counted, expected);
}

#[test]
fn functions_send_mail_from_the_configured_address_alone() {
    let mut senders = BTreeSet::new();
    for (name, function) in functions() {
        let policies = function["Properties"]["Policies"].as_array().cloned().unwrap_or_default();
        let statements = policies.iter().flat_map(|policy| policy["Statement"].as_array().into_iter().flatten());
        for statement in statements.filter(|statement| statement["Action"] == "ses:SendEmail") {
            let resource = text(statement, "Resource");
            if resource.ends_with(":configuration-set/${MailConfigurationSet}") {
                continue;
            }
            // In the sandbox, SES checks the recipient's identity too.
            assert!(resource.ends_with(":identity/*"), "{name}: {resource}");
            assert_eq!(statement["Condition"], json!({"StringEquals": {"ses:FromAddress": "MailFrom"}}), "{name}");
            senders.insert(name.clone());
        }
    }
    let expected = [
        "ConsoleMembers",
        "EmailTokensRegenerate",
        "EmailTokensRegister",
        "EmailTokensReset",
        "EmailTokensRevoke",
        "IntegrationsGithubSecretScanning",
        "LeaksSend",
        "RemindersSend",
        "SignInCode",
        "TokensLeaked",
    ];
    assert_eq!(senders, BTreeSet::from(expected.map(str::to_owned)));
}

#[test]
fn log_levels_of_the_template_are_levels_that_functions_use() {
    let template: Value = serde_saphyr::from_str(&read("template.yaml")).unwrap();
    let allowed = &template["Parameters"]["LogLevel"]["AllowedValues"];
    // Below info there is no line, and Lambda drops it from logs in JSON.
    assert_eq!(allowed, &json!(["error", "warn", "info"]));
}

#[test]
fn openapi_document_is_up_to_date() {
    let document = serde_json::to_string_pretty(&local::api::document()).unwrap() + "\n";
    assert!(
        document == read("openapi.json"),
        "openapi.json is out of date: cargo openapi > openapi.json.new && mv openapi.json.new openapi.json"
    );
}

#[test]
fn no_code_scans_a_table() {
    let mut folders = vec![root().join("shared"), root().join("functions"), root().join("local"), root().join("admin")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = std::fs::read_to_string(&path).unwrap();
                assert!(!code.contains(".scan("), "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 50);
    assert!(!read("template.yaml").contains("dynamodb:Scan"));
}

#[tokio::test]
async fn template_tables_match_the_code() {
    let service = Service::start().await;
    let template: Value = serde_saphyr::from_str(&read("template.yaml")).unwrap();
    for (resource, table) in [("TokensTable", TABLE), ("InstallationsTable", INSTALLATIONS)] {
        let declared = &template["Resources"][resource]["Properties"];
        let made = service.table.describe(table).await;
        for part in ["KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes"] {
            let parts = |of: &Value| {
                let parts = of[part].as_array().unwrap().iter().map(|part| {
                    let name = text(part, "AttributeName").to_owned() + text(part, "IndexName");
                    let kind = text(part, "KeyType").to_owned() + text(part, "AttributeType");
                    (name, kind, part["KeySchema"].clone(), part["Projection"].clone())
                });
                let mut parts: Vec<_> = parts.collect();
                parts.sort_by(|a, b| a.0.cmp(&b.0));
                parts
            };
            assert_eq!(parts(&made), parts(declared), "{resource}: {part}");
        }
    }
}
