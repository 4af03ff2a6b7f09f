//! Creates the tables as `template.yaml` declares them, for the local service and tests, which have
//! no CloudFormation.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TableStatus, TimeToLiveSpecification,
};

use super::keys::{AUDIT_BY_ACTION, AUDIT_BY_ACTOR, AUDIT_BY_ACTOR_AND_ACTION, AUDIT_BY_TARGET, PK, SK, TTL};
use super::{Store, StoreError, failure};

impl Store {
    /// Creates the table with its indexes and TTL. False if it already exists.
    pub async fn create_table(&self) -> Result<bool, StoreError> {
        let indexes = [AUDIT_BY_ACTOR, AUDIT_BY_ACTION, AUDIT_BY_ACTOR_AND_ACTION, AUDIT_BY_TARGET];
        let indexes = indexes.map(|(name, pk)| (name, pk, SK));
        create(&self.client, &self.table, (PK, Some(SK)), &indexes).await
    }
}

/// Creates a table with this key and these indexes: name, partition key and sort key. False if it
/// already exists.
pub(super) async fn create(
    client: &Client,
    table: &str,
    (pk, sk): (&str, Option<&str>),
    indexes: &[(&str, &str, &str)],
) -> Result<bool, StoreError> {
    let mut attributes = BTreeSet::from_iter([Some(pk), sk].into_iter().flatten());
    let mut request = client
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(schema(pk, sk)?));
    for (name, pk, sk) in indexes {
        attributes.extend([pk, sk]);
        let index = GlobalSecondaryIndex::builder().index_name(*name).set_key_schema(Some(schema(pk, Some(sk))?));
        let index = index.projection(Projection::builder().projection_type(ProjectionType::All).build());
        request = request.global_secondary_indexes(index.build().map_err(|_| StoreError::Defect)?);
    }
    for attribute in attributes {
        request = request.attribute_definitions(string(attribute)?);
    }
    match request.send().await {
        Ok(_) => {}
        Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => {
            return Ok(false);
        }
        Err(error) => return Err(failure(error)),
    }
    until_active(client, table).await?;
    let ttl = TimeToLiveSpecification::builder().attribute_name(TTL).enabled(true).build();
    let ttl = ttl.map_err(|_| StoreError::Defect)?;
    let request = client.update_time_to_live().table_name(table).time_to_live_specification(ttl);
    request.send().await.map_err(failure)?;
    Ok(true)
}

/// Waits until a new table is active: immediately in an emulator, after seconds in AWS.
async fn until_active(client: &Client, table: &str) -> Result<(), StoreError> {
    for _ in 0..MAX_ROUNDS {
        let described = client.describe_table().table_name(table).send().await.map_err(failure)?;
        if described.table().and_then(|table| table.table_status()) == Some(&TableStatus::Active) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(StoreError::Unavailable)
}

/// Maximum number of seconds to wait for a new table.
const MAX_ROUNDS: usize = 120;

fn string(name: &str) -> Result<AttributeDefinition, StoreError> {
    let definition = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
    definition.build().map_err(|_| StoreError::Defect)
}

fn schema(pk: &str, sk: Option<&str>) -> Result<Vec<KeySchemaElement>, StoreError> {
    let keys = [Some((pk, KeyType::Hash)), sk.map(|sk| (sk, KeyType::Range))];
    keys.into_iter()
        .flatten()
        .map(|(name, kind)| KeySchemaElement::builder().attribute_name(name).key_type(kind).build())
        .collect::<Result<_, _>>()
        .map_err(|_| StoreError::Defect)
}
