// Every page in English and Japanese, light and dark, with and without script, wide and 320 px
// narrow: no violation that axe finds, nothing to scroll sideways, no message in the console.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { browser, registry, service, signIn, signInByMail } from './service.mjs';

const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

const FACTORS = { lang: ['en', 'ja'], scheme: ['light', 'dark'], script: [true, false], width: [1280, 320] };

// Each pair of values of two factors is in one of them.
const PAIRS = [
  ['en', 'light', true, 1280],
  ['en', 'dark', false, 320],
  ['ja', 'light', false, 1280],
  ['ja', 'dark', true, 320],
  ['en', 'light', true, 320],
  ['ja', 'dark', false, 1280],
];

function combinations() {
  if (process.env.COMBINATIONS !== 'all') return PAIRS;
  return Object.values(FACTORS).reduce((all, values) => all.flatMap(row => values.map(value => [...row, value])), [[]]);
}

test('combinations pair every two values of two factors', () => {
  const factors = Object.values(FACTORS);
  for (let a = 0; a < factors.length; a++)
    for (let b = a + 1; b < factors.length; b++)
      for (const one of factors[a])
        for (const other of factors[b])
          assert.ok(PAIRS.some(row => row[a] === one && row[b] === other), `${one} with ${other}`);
});

let upstream, running, chrome, state, invited;
const pages = {};

before(async () => {
  upstream = await registry();
  running = await service('--npm-upstream', upstream.url);
  chrome = await browser();
  state = await signIn(chrome, running);
  const { ORG } = running.env;
  const tokens = `/v1/o/${ORG}/guard/org-user-tokens`;
  const issued = [];
  for (const user of ['alice@example.com', 'C02X1234_jdoe', 'ASSET0042_EMP12345'])
    issued.push(await running.api('POST', tokens, { user_identifier: user }));
  await running.api('DELETE', `${tokens}/by-id/${issued[2].id}`);
  const scopes = ['shield:write', 'org:read'];
  const key = await running.api('POST', '/v1/api-keys', { name: 'cursor-laptop', environment: 'live', scopes });
  const access = await running.api('POST', '/api/v2/organization/tokens/', { name: 'Factor export pipeline' });
  await running.download(issued[0].token);

  const base = `/console/o/${ORG}`;
  const bot = running.env.BOT_ID;
  const members = await (await chrome.newContext({ storageState: state })).newPage();
  await members.goto(`${running.base}${base}/members`);
  const member = new URL(await members.locator('main table a').first().getAttribute('href'), running.base).pathname;
  await members.goto(`${running.base}${base}/bots/${bot}/trusts/add`);
  await members.getByLabel('Owner ID').fill('1342004');
  await members.getByLabel('Branch or tag').fill('refs/heads/main');
  await members.getByRole('button', { name: 'Add' }).click();
  const removal = members.locator('main table a.danger').first();
  const trust = new URL(await removal.getAttribute('href'), running.base).pathname;
  await members.goto(`${running.base}${base}/projects`);
  await members.getByLabel('Project ID').fill('prd-greenhouse');
  await members.getByRole('button', { name: /Add/ }).click();
  await members.goto(`${running.base}${base}/members/invite`);
  await members.getByLabel('Email address').fill('frank@example.com');
  await members.getByLabel('Guard manager').check();
  await members.getByRole('button', { name: 'Invite' }).click();
  await members.context().close();
  invited = await signInByMail(chrome, running, 'frank@example.com');
  Object.assign(pages, {
    overview: base,
    tokens: `${base}/tokens`,
    'tokens-revoked': `${base}/tokens?state=revoked`,
    'tokens-not-found': `${base}/tokens?prefix=nobody`,
    'token-issue': `${base}/tokens/issue`,
    'token-revoke': `${base}/tokens/${issued[1].id}/revoke`,
    'token-rotate': `${base}/tokens/${issued[1].id}/rotate`,
    'tokens-revoke-by-user': `${base}/tokens/revoke-by-user`,
    'tokens-revoke-by-user-preview': `${base}/tokens/revoke-by-user?user_identifier=alice@example.com`,
    installations: `${base}/installations`,
    'my-tokens': `${base}/my-tokens`,
    'my-token-issue': `${base}/my-tokens/issue`,
    'api-keys': `${base}/api-keys`,
    'api-key': `${base}/api-keys/${key.id}`,
    'api-key-create': `${base}/api-keys/create`,
    'api-key-revoke': `${base}/api-keys/${key.id}/revoke`,
    'api-key-rotate': `${base}/api-keys/${key.id}/rotate`,
    'access-tokens': `${base}/access-tokens`,
    'access-token-create': `${base}/access-tokens/create`,
    'access-token': `${base}/access-tokens/${access.id}`,
    'access-token-delete': `${base}/access-tokens/${access.id}/delete`,
    bots: `${base}/bots`,
    'bot-add': `${base}/bots/add`,
    bot: `${base}/bots/${bot}`,
    'trust-add': `${base}/bots/${bot}/trusts/add`,
    'trust-add-gitlab': `${base}/bots/${bot}/trusts/add?preset=gitlab`,
    'trust-add-any': `${base}/bots/${bot}/trusts/add?preset=any`,
    'trust-remove': trust,
    'bot-end-tokens': `${base}/bots/${bot}/end-tokens`,
    'bot-delete': `${base}/bots/${bot}/delete`,
    members: `${base}/members`,
    'member-invite': `${base}/members/invite`,
    member,
    'member-remove': `${member}/remove`,
    projects: `${base}/projects`,
    'project-remove': `${base}/projects/prd-greenhouse/remove`,
    policies: `${base}/policies`,
    'audit-log': `${base}/audit-log`,
    account: '/console/account',
    'not-found': '/console/no-such-page',
    'link-used': new URL(running.link).pathname,
  });
});

after(async () => {
  await chrome?.close();
  running?.stop();
  upstream?.stop();
});

/// A context, where the console's script is empty if it is not wanted: the checker needs a browser
/// that runs scripts. journey.test.mjs switches them off.
async function contextOf(script, options) {
  const context = await chrome.newContext(options);
  if (!script) await context.route(/\.js$/, route => route.fulfill({ contentType: 'text/javascript', body: '' }));
  return context;
}

async function check(page, name, combination, problems) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) problems.push(`${name} ${combination}: ${wide} px too wide`);
  await page.evaluate(axe);
  const found = await page.evaluate(rules => axe.run(document, { resultTypes: ['violations'], runOnly: rules }), RULES);
  for (const { id, nodes } of found.violations) problems.push(`${name} ${combination}: ${id} at ${nodes[0].target}`);
  const file = path.join(process.env.SCREENSHOTS, `${name}-${combination}.png`);
  await page.screenshot({ path: file, fullPage: true });
}

async function lookAtAll(lang, scheme, script, width, problems) {
  const combination = `${lang}-${scheme}-${script ? 'script' : 'plain'}-${width}`;
  const options = {
    viewport: { width, height: width === 320 ? 640 : 860 },
    colorScheme: scheme,
    locale: lang === 'ja' ? 'ja-JP' : 'en-US',
  };
  const context = await contextOf(script, { storageState: state, ...options });
  const page = await context.newPage();
  page.on('console', message => {
    const expected = /status of 4(00|04|10)/.test(message.text());
    if (['error', 'warning'].includes(message.type()) && !expected) problems.push(`${page.url()}: ${message.text()}`);
  });
  page.on('pageerror', error => problems.push(`${page.url()}: ${error.message}`));
  for (const [name, route] of Object.entries(pages)) {
    const response = await page.goto(running.base + route);
    const expected = { 'not-found': 404, 'link-used': 410 }[name] ?? 200;
    if (response.status() !== expected) problems.push(`${name}: ${response.status()}`);
    assert.equal(await page.locator('html').getAttribute('lang'), lang, name);
    await check(page, name, combination, problems);
  }
  // A form with errors, and the pages that show a secret.
  const submit = async (form, name, fill) => {
    await page.goto(running.base + pages[form]);
    await fill();
    await page.locator('main form.form button.primary').click();
    await page.locator('.secret, [aria-invalid]').first().waitFor();
    await check(page, name, combination, problems);
  };
  await submit('token-issue', 'token-issue-errors', async () => {});
  await submit('token-issue', 'token-issued', () => page.locator('#user_identifier').fill('alice-laptop'));
  await submit('api-key-create', 'api-key-created', async () => {
    await page.locator('#name').fill(combination);
    await page.locator('[name=environment]').first().check();
    await page.locator('[name=scope]').first().check();
  });
  await submit('access-token-create', 'access-token-created', () => page.locator('#name').fill(combination));
  await submit('bot-add', 'bot-added', async () => {
    await page.locator('#name').fill(combination);
    await page.locator('[name=role]').first().check();
  });
  await submit('trust-add-any', 'trust-add-errors', async () => {});
  await context.close();

  const nobody = await (await contextOf(script, options)).newPage();
  await nobody.goto(`${running.base}/console/`);
  await check(nobody, 'sign-in', combination, problems);
  await nobody.locator('#email').fill('nobody@example.com');
  await nobody.locator('form button').last().click();
  await check(nobody, 'code', combination, problems);
  await nobody.context().close();

  const guest = await (await contextOf(script, { storageState: invited, ...options })).newPage();
  await guest.goto(`${running.base}/console/`);
  await check(guest, 'invitations', combination, problems);
  await guest.locator('main a.card').click();
  await guest.locator('main button.primary').waitFor();
  await check(guest, 'invitation', combination, problems);
  await guest.context().close();
}

test('checks notice pale text, a button without a name, and what is too wide', async () => {
  const page = await (await chrome.newContext({ viewport: { width: 320, height: 640 } })).newPage();
  const pale = '<p style="color:#bbb;background:#fff">pale</p>';
  const wide = '<div style="width:500px">wide</div>';
  await page.setContent(`<html lang="en"><title>t</title><main><h1>h</h1>${pale}<button></button>${wide}</main>`);
  const problems = [];
  await check(page, 'broken', 'en', problems);
  for (const expected of ['color-contrast', 'button-name', 'too wide'])
    assert.ok(problems.some(problem => problem.includes(expected)), `${expected} is not in ${problems}`);
  await page.context().close();
});

test('every page has no violation, is not too wide and writes nothing to the console', async () => {
  const problems = [];
  const left = combinations();
  const look = async () => {
    for (let next = left.shift(); next; next = left.shift()) await lookAtAll(...next, problems);
  };
  // Two at a time: while one waits for the service, the other draws.
  await Promise.all([look(), look()]);
  assert.deepEqual(problems, []);
});

test('pages are small', async () => {
  const context = await chrome.newContext({ storageState: state });
  const page = await context.newPage();
  await page.goto(running.base + pages.overview);
  const assets = await page.evaluate(() => [
    document.querySelector('link[rel=stylesheet]').href,
    document.querySelector('script[src]').src,
  ]);
  const { gzipSync } = await import('node:zlib');
  const size = async url => gzipSync(Buffer.from(await (await fetch(url)).arrayBuffer()), { level: 9 }).length;
  const [css, js] = await Promise.all(assets.map(size));
  assert.ok(css <= 8 * 1024, `the stylesheet has ${css} bytes`);
  assert.ok(js <= 6 * 1024, `the script has ${js} bytes`);
  for (const [name, route] of Object.entries(pages)) {
    const response = await page.goto(running.base + route);
    const bytes = gzipSync(await response.body(), { level: 9 }).length;
    assert.ok(bytes <= 30 * 1024, `${name} has ${bytes} bytes`);
  }
  await context.close();
});
