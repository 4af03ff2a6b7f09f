// Makes the screenshots of docs/CONSOLE.md, of a store that exists for them alone.

import fs from 'node:fs';
import path from 'node:path';
import { smaller } from './png.mjs';
import { browser, registry, service, signIn } from './service.mjs';

const [target] = process.argv.slice(2);
fs.mkdirSync(target, { recursive: true });
const upstream = await registry();
const running = await service('--npm-upstream', upstream.url);
const chrome = await browser();
try {
  const state = await signIn(chrome, running);
  const base = `${running.base}/console/o/${running.env.ORG}`;
  const tokens = `/v1/o/${running.env.ORG}/guard/org-user-tokens`;
  const issue = user => running.api('POST', tokens, { user_identifier: user });
  for (const [user, times] of [['alice@example.com', 9], ['bob@example.com', 4], ['C02X1234_jdoe', 2]]) {
    const { token } = await issue(user);
    for (let time = 0; time < times; time++) await running.download(token);
  }
  await issue('ASSET0042_EMP12345');
  for (const [name, scopes] of [
    ['cursor-laptop', ['shield:read', 'shield:write']],
    ['ci-pipeline', ['shield:read', 'shield:write', 'audit:read']],
    ['team-shared', ['org:read']],
  ])
    await running.api('POST', '/v1/api-keys', { name, environment: 'live', scopes });

  const options = { viewport: { width: 1280, height: 800 }, colorScheme: 'light', locale: 'en-US' };
  const context = await chrome.newContext({ storageState: state, ...options });
  const page = await context.newPage();
  for (const [email, role] of [['bob@example.com', 'Guard manager'], ['carol@example.com', 'API key manager']]) {
    await page.goto(`${base}/members/invite`);
    await page.getByLabel('Email address').fill(email);
    await page.getByLabel(role).check();
    await page.getByRole('button', { name: 'Invite' }).click();
  }
  const shoot = async name => fs.writeFileSync(path.join(target, `${name}.png`), smaller(await page.screenshot()));
  for (const [name, route] of Object.entries({
    overview: '',
    tokens: '/tokens',
    'api-keys': '/api-keys',
    members: '/members',
    'audit-log': '/audit-log',
  })) {
    await page.goto(base + route);
    await shoot(name);
  }
  await page.goto(`${base}/tokens/issue`);
  await page.getByLabel('User Identifier').fill('dave@example.com');
  await page.getByRole('button', { name: 'Issue', exact: true }).click();
  await page.getByText(/tg_org_/).first().waitFor();
  await shoot('token-issued');
} finally {
  await chrome.close();
  running.stop();
  upstream.stop();
}
