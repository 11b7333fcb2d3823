//! The JSON Schema of a service's file, for editors.

use serde_json::{Value, json};

/// Returns the schema of `SERVICE.toml`. Editors that know TOML check a file against it while it is written; the parser
/// is stricter and says more.
pub fn json_schema() -> Value {
    let duration = json!({"type": "string", "description": "a length of time: `10 s`, `1h 30m`, `2 days`"});
    let percent = json!({"type": ["number", "string"], "description": "a percentage: 5, 0.5 or \"0.5 %\""});
    let reference = |key: &str| object(json!({key: {"type": "string"}}), &[key]);
    let name = "^[a-z0-9][a-z0-9-]{0,62}$";
    let mut schema = object(
        json!({
            "name": {"type": "string", "pattern": name, "description": "the service's name"},
            "owner": {"type": "string", "minLength": 1, "maxLength": 200, "description": "the team that answers for it"},
            "description": {"type": "string", "maxLength": 2_000},
            "listen": {
                "type": "object", "propertyNames": {"pattern": name}, "additionalProperties": {"type": "string"},
                "description": "where users' traffic arrives, an address an environment"
            },
            "run": object(json!({
                "args": {"type": "array", "items": {"type": "string"}, "description": "`{port}` stands for the node's port"},
                "env": {
                    "type": "object", "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                    "additionalProperties": {"oneOf": [{"type": "string"}, reference("from_env"), reference("from_file")]}
                },
                "start_deadline": duration,
                "user": {
                    "type": "string", "pattern": "^[a-z_][a-z0-9_-]{0,31}$",
                    "description": "as whom its nodes run where ionledger is root; else a user made for it"
                }
            }), &[]),
            "check": object(json!({
                "path": {"type": "string", "pattern": "^/"},
                "status": {"type": "integer", "minimum": 100, "maximum": 599},
                "timeout": duration, "interval": duration,
                "healthy_after": {"type": "integer", "minimum": 1, "maximum": 100},
                "latency_max": duration
            }), &[]),
            "capacity": object(json!({
                "nodes": {"type": "integer", "minimum": 1, "maximum": 100},
                "min_ready": {"type": "integer", "minimum": 1, "maximum": 100}
            }), &[]),
            "rollout": object(json!({
                "steps": {"type": "array", "minItems": 1, "maxItems": 100, "items": percent},
                "duration": duration, "on_release": {"type": "boolean"},
                "early": {"type": "string", "pattern": "^(never|after .+)$", "description": "`never`, or `after 30 minutes`"},
                "bake": duration, "control": percent,
                "rollback_past_target": {"type": "boolean"},
                "hold_after": {"enum": ["rollback", "any", "never"]}
            }), &[]),
            "judgement": judgement(&duration, &percent),
            "retention": object(json!({
                "serving_max": {"type": "integer", "minimum": 2, "maximum": 100},
                "warm_for": duration, "warm_max": {"type": "integer", "minimum": 0}, "drain": duration
            }), &[])
        }),
        &["name", "owner"],
    );
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "ionledger: a service's file".into();
    schema
}

fn judgement(duration: &Value, percent: &Value) -> Value {
    let ratio = json!({"type": ["number", "string"], "description": "how many times the old version's rate: 1.2"});
    let query = json!({"type": "string", "pattern": "\\{version\\}", "description": "a selector of counters"});
    let reference = |key: &str| object(json!({key: {"type": "string"}}), &[key]);
    object(
        json!({
            "errors_tolerance": percent, "errors_ratio": ratio, "4xx_tolerance": percent, "4xx_ratio": ratio,
            "p50_tolerance": percent, "p99_tolerance": percent,
            "weights": object(json!({"errors": percent, "4xx": percent, "p50": percent, "p99": percent}), &[]),
            "alpha": percent, "beta": percent,
            "requests_min": {"type": "integer", "minimum": 1},
            "soak": duration, "deadline": {"enum": ["go on", "hold"]}, "warm_up": duration,
            "burst_cap": {"type": "boolean"}, "bad_requests_max": {"type": "integer", "minimum": 1},
            "prometheus": object(json!({
                "address": {"type": "string", "pattern": "^https?://"},
                "token": {"oneOf": [reference("from_env"), reference("from_file")]},
                "scrape_interval": duration,
                "requests": query, "errors": query, "4xx": query, "latency": query
            }), &["address"])
        }),
        &[],
    )
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}
