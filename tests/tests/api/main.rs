//! Black-box tests of the whole service over HTTP: one module per resource, and one per rule that
//! applies to every operation. They share one test program, so that a change links only one binary.

mod api_keys;
mod audit;
mod audit_log;
mod auth_coverage;
mod authorizer;
mod bad_input;
mod bodies;
mod cost;
mod email_tokens_attacks;
mod email_tokens_faults;
mod email_tokens_life;
mod email_tokens_limits;
mod email_tokens_records;
mod email_tokens_refusals;
mod email_tokens_tour;
mod faults;
mod installations;
mod introspect;
mod last_used;
mod mails;
mod modules;
mod openapi;
mod org_access_tokens;
mod org_user_tokens_issue;
mod org_user_tokens_list;
mod org_user_tokens_probe;
mod org_user_tokens_revoke;
mod org_user_tokens_revoke_by_user;
mod policies;
mod races;
mod registries;
mod registry_npm;
mod registry_pypi;
mod routes;
mod structure;
