// The check of an org user token that functions/tokens/authorize makes, for Node.js: verifies the checksum, looks up the
// token by its hash in one strongly consistent read, and responds to API Gateway. Omits the update of `last_used_at`,
// which happens once a minute.

import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { DynamoDBClient, GetItemCommand } from "@aws-sdk/client-dynamodb";

const FORM = /^tg_org_[0-9A-Za-z]{42}$/;
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const REFUSED = { isAuthorized: false };

const client = new DynamoDBClient({});

export async function handler(event) {
  const [scheme, token] = (event.headers?.authorization ?? "").split(" ");
  if (scheme?.toLowerCase() !== "bearer" || !FORM.test(token) || checksum(token.slice(0, -6)) !== token.slice(-6)) {
    return REFUSED;
  }
  const { Item: item } = await client.send(
    new GetItemCommand({
      TableName: process.env.TOKENS_TABLE,
      Key: { pk: { S: `TOKEN#${createHash("sha256").update(token).digest("hex")}` }, sk: { S: "TOKEN" } },
      ConsistentRead: true,
    }),
  );
  const ended = item?.expires_at?.S && Date.parse(item.expires_at.S) <= Date.now();
  if (item?.kind?.S !== "org_user" || item.revoked_at?.S || ended) return REFUSED;
  return {
    isAuthorized: true,
    context: {
      kind: "org_user_token",
      id: item.id.S,
      org_id: item.org_id.S,
      user_identifier: item.user_identifier.S,
      ...(item.expires_at?.S && { expires_at: item.expires_at.S }),
    },
  };
}

function checksum(text) {
  let digits = "";
  for (let rest = crc32(text); digits.length < 6; rest = Math.floor(rest / 62)) digits = DIGITS[rest % 62] + digits;
  return digits;
}
