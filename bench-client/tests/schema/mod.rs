//! Whether a file is what its committed schema says.

use serde_json::Value;

/// Fails with every place at which `written` is not as `schema` demands.
pub fn assert_valid(schema: &str, written: &Value) {
    let schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("the schema is one");
    let errors = validator.iter_errors(written).map(|error| format!("{} at {}", error, error.instance_path()));
    let errors: Vec<String> = errors.collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}
