// What references 000 to 002 say a person does in the console, done in a browser: with the npm lines
// of an issued token a package is installed, the installation is seen, and revoking ends it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { browser, enterCode, folder, registry, service, signIn } from './service.mjs';

const run = promisify(execFile);

let upstream, running, chrome, state;

before(async () => {
  upstream = await registry();
  running = await service('--npm-upstream', upstream.url);
  chrome = await browser();
  state = await signIn(chrome, running);
});

after(async () => {
  await chrome?.close();
  running?.stop();
  upstream?.stop();
});

async function open(options = {}) {
  const context = await chrome.newContext({ storageState: state, locale: 'en-US', ...options });
  const page = await context.newPage();
  await page.goto(`${running.base}/console/`);
  return page;
}

/// What `npm install widgets` prints in a new project, and its exit code.
async function npmInstall(home) {
  const project = fs.mkdtempSync(path.join(home, 'project-'));
  fs.writeFileSync(path.join(project, 'package.json'), '{"name":"app","version":"1.0.0"}');
  const cache = fs.mkdtempSync(path.join(home, 'cache-'));
  const env = { PATH: process.env.PATH, HOME: home, npm_config_cache: cache, npm_config_update_notifier: 'false' };
  const command = run('npm', ['install', 'widgets', '--no-audit'], { cwd: project, env });
  return command.then(({ stderr }) => ({ code: 0, stderr }), ({ code, stderr }) => ({ code, stderr }));
}

test('link signs in once', async () => {
  const page = await open();
  const used = await page.goto(running.link);
  assert.equal(used.status(), 410);
  await page.context().close();
});

test('issued token installs a package, which is logged, until it is revoked', async () => {
  const page = await open();
  await page.getByRole('link', { name: 'Tokens', exact: true }).click();
  await page.getByRole('link', { name: 'Issue Token' }).first().click();
  await page.getByLabel('User Identifier').fill('alice-laptop');
  await page.getByRole('button', { name: 'Issue', exact: true }).click();
  const text = await page.locator('main').innerText();
  const token = text.match(/tg_org_[0-9A-Za-z]{42}/)[0];
  assert.ok(!page.url().includes(token));

  const home = folder();
  const lines = await page.locator('#npm').textContent();
  await run('sh', ['-euc', lines], { cwd: home, env: { PATH: process.env.PATH, HOME: home } });
  const installed = await npmInstall(home);
  assert.equal(installed.code, 0, installed.stderr);

  await page.getByRole('link', { name: 'Installations', exact: true }).click();
  const row = page.getByRole('row', { name: /widgets/ });
  assert.match(await row.innerText(), /alice-laptop/);

  await page.getByRole('link', { name: 'Tokens', exact: true }).click();
  await page.getByRole('row', { name: /alice-laptop/ }).getByRole('link', { name: /Revoke/ }).click();
  await page.getByRole('button', { name: 'Revoke' }).click();
  await page.getByText('The token was revoked.').waitFor();
  assert.ok(!(await page.content()).includes(token));
  const refused = await npmInstall(home);
  assert.notEqual(refused.code, 0);
  assert.match(refused.stderr, /401/);
  await page.context().close();
});

test('shown token is not in the history and is copied by its button', async () => {
  const page = await open({ permissions: ['clipboard-read', 'clipboard-write'] });
  await page.getByRole('link', { name: 'Tokens', exact: true }).click();
  await page.getByRole('link', { name: 'Issue Token' }).first().click();
  await page.getByLabel('User Identifier').fill('bob-laptop');
  await page.getByRole('button', { name: 'Issue', exact: true }).click();
  const token = (await page.locator('main').innerText()).match(/tg_org_[0-9A-Za-z]{42}/)[0];
  await page.locator('.secret').getByRole('button', { name: /Copy/ }).click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), token);
  await page.getByRole('link', { name: 'Tokens', exact: true }).click();
  // The page is not stored, so that the browser asks before it would send the form again.
  await page.goBack().catch(error => assert.match(error.message, /ERR_CACHE_MISS/));
  assert.ok(!(await page.locator('html').innerHTML()).includes(token));
  await page.context().close();
});

async function issuedTo(user) {
  const { ORG } = running.env;
  return (await running.api('GET', `/v1/o/${ORG}/guard/org-user-tokens?user_identifier=${user}`)).tokens.length;
}

for (const script of [true, false])
  test(`double click issues one token ${script ? 'with' : 'without'} script`, async () => {
    const user = `double-click-${script}`;
    const page = await open({ javaScriptEnabled: script });
    await page.goto(`${running.base}/console/o/${running.env.ORG}/tokens/issue`);
    await page.getByLabel('User Identifier').fill(user);
    await page.getByRole('button', { name: 'Issue', exact: true }).dblclick();
    await page.waitForLoadState();
    await page.getByText(user).first().waitFor();
    assert.equal(await issuedTo(user), 1);
    await page.context().close();
  });

test('issued page that is reloaded issues nothing and does not show the token again', async () => {
  const page = await open();
  await page.goto(`${running.base}/console/o/${running.env.ORG}/tokens/issue`);
  await page.getByLabel('User Identifier').fill('reload-page');
  await page.getByRole('button', { name: 'Issue', exact: true }).click();
  const token = (await page.locator('main').innerText()).match(/tg_org_[0-9A-Za-z]{42}/)[0];
  const again = await page.reload();
  assert.equal(again.status(), 409);
  assert.ok(!(await page.content()).includes(token));
  assert.equal(await issuedTo('reload-page'), 1);
  await page.context().close();
});

/// Presses Tab until an element that matches has the focus, which must be visible at each step.
async function tabTo(page, selector) {
  for (let tabs = 0; tabs < 80; tabs++) {
    await page.keyboard.press('Tab');
    const focused = await page.evaluate(wanted => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      return { found: element.matches(wanted), html: element.outerHTML, outline: `${outlineWidth} ${outlineStyle}` };
    }, selector);
    assert.match(focused.outline, /^[1-9].* (solid|auto)$/, `no visible focus: ${focused.html}`);
    if (focused.found) return;
  }
  assert.fail(`the keyboard does not reach ${selector}`);
}

test('token is issued, copied and revoked with the keyboard alone', async () => {
  const page = await open({ permissions: ['clipboard-read', 'clipboard-write'] });
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content');
  const follow = async selector => {
    await tabTo(page, selector);
    await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
  };
  await follow('nav a[href$="/tokens"]');
  await follow('a[href$="/tokens/issue"]');
  await tabTo(page, '#user_identifier');
  await page.keyboard.type('keyboard-only');
  await tabTo(page, 'input[name=expiry]');
  await page.keyboard.press('ArrowUp');
  assert.ok(await page.getByLabel('In 30 days').isChecked());
  await follow('main button.primary');
  const token = (await page.locator('main').innerText()).match(/tg_org_[0-9A-Za-z]{42}/)[0];
  await tabTo(page, '[data-copy=token]');
  await page.keyboard.press('Enter');
  await page.getByRole('status').filter({ hasText: 'Copied' }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), token);
  await follow('main a.primary');
  await page.getByLabel('User identifier starts with').focus();
  await page.keyboard.type('keyboard-only');
  await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
  await follow('a.danger[href$="/revoke"]');
  await follow('main button.danger');
  await page.getByText('The token was revoked.').waitFor();
  await page.context().close();
});

test('menu of a narrow screen works without script', async () => {
  const page = await open({ viewport: { width: 320, height: 640 }, javaScriptEnabled: false });
  const link = page.getByRole('link', { name: 'Tokens', exact: true });
  assert.ok(!(await link.isVisible()));
  await page.getByRole('button', { name: 'Menu' }).click();
  await link.click();
  await page.getByRole('heading', { name: 'Tokens', level: 1 }).waitFor();
  await page.context().close();
});

test('language is switched and kept', async () => {
  const page = await open();
  await page.getByRole('button', { name: '日本語' }).click();
  await page.goto(`${running.base}/console/`);
  assert.equal(await page.locator('html').getAttribute('lang'), 'ja');
  await page.getByRole('button', { name: 'English' }).click();
  await page.goto(`${running.base}/console/`);
  assert.equal(await page.locator('html').getAttribute('lang'), 'en');
  await page.context().close();
});

test('refused form keeps what was typed, says why next to the field and focuses it', async () => {
  const page = await open();
  await page.goto(`${running.base}/console/o/${running.env.ORG}/tokens/issue`);
  await page.getByLabel('User Identifier').fill('a b c d');
  await page.getByRole('button', { name: 'Issue', exact: true }).click();
  const field = page.getByLabel('User Identifier');
  assert.equal(await field.inputValue(), 'a b c d');
  assert.equal(await field.getAttribute('aria-invalid'), 'true');
  assert.ok(await field.evaluate(element => element === document.activeElement));
  const error = (await field.getAttribute('aria-describedby')).split(' ').find(id => id.endsWith('-error'));
  assert.match(await page.locator(`#${error}`).innerText(), /Use only the letters/);
  await page.context().close();
});

test('key is created, clicked and revoked without script', async () => {
  const page = await open({ javaScriptEnabled: false });
  await page.getByRole('link', { name: 'API Keys' }).click();
  await page.getByRole('link', { name: 'Create Key' }).first().click();
  await page.getByLabel('Name').fill('ci-pipeline');
  await page.getByLabel('Production').check();
  await page.getByRole('button', { name: 'Create' }).click();
  const key = (await page.locator('main').innerText()).match(/tk_live_[0-9a-f]{64}/)[0];
  const whoami = () => fetch(`${running.base}/v1/whoami`, { headers: { authorization: `Bearer ${key}` } });
  assert.equal((await whoami()).status, 200);
  await page.getByRole('link', { name: 'API Keys', exact: true }).first().click();
  await page.getByRole('link', { name: 'ci-pipeline' }).click();
  await page.getByRole('link', { name: 'Revoke' }).click();
  await page.getByText('There is no undo').first().waitFor();
  await page.getByRole('button', { name: 'Revoke' }).click();
  await page.getByText('The API key was revoked.').waitFor();
  assert.equal((await whoami()).status, 401);
  await page.context().close();
});

test('key is rotated until the new one is used, without script', async () => {
  const page = await open({ javaScriptEnabled: false });
  await page.getByRole('link', { name: 'API Keys' }).click();
  await page.getByRole('link', { name: 'Create Key' }).first().click();
  await page.getByLabel('Name').fill('deploy');
  await page.getByLabel('Production').check();
  await page.getByRole('button', { name: 'Create' }).click();
  const shown = async () => (await page.locator('main').innerText()).match(/tk_live_[0-9a-f]{64}/)[0];
  const whoami = async key =>
    (await fetch(`${running.base}/v1/whoami`, { headers: { authorization: `Bearer ${key}` } })).status;
  const old = await shown();
  await page.getByRole('link', { name: 'API Keys', exact: true }).first().click();
  await page.getByRole('link', { name: 'deploy' }).click();
  await page.getByRole('link', { name: 'Rotate' }).click();
  await page.getByLabel('Overlap').selectOption('first-use');
  await page.getByRole('button', { name: 'Rotate' }).click();
  const key = await shown();
  assert.notEqual(key, old);
  assert.deepEqual([await whoami(old), await whoami(key), await whoami(old)], [200, 200, 401]);
  await page.context().close();
});

test('added bot issues a token with its shown credential', async () => {
  const page = await open();
  await page.getByRole('link', { name: 'Bots', exact: true }).click();
  await page.getByRole('link', { name: 'Add Bot' }).first().click();
  await page.getByLabel('Name').fill('onboarding');
  await page.getByLabel('Token issuer').check();
  await page.getByRole('button', { name: 'Add' }).click();
  const credential = (await page.locator('main').innerText()).match(/shisho_apikey_\w{43}:BT\w{26}/)[0];
  const issued = await fetch(`${running.base}/v1/o/${running.env.ORG}/guard/org-user-tokens`, {
    method: 'POST',
    headers: { authorization: `Bearer ${credential}`, 'content-type': 'application/json' },
    body: JSON.stringify({ user_identifier: 'carol-laptop' }),
  });
  assert.equal(issued.status, 201, await issued.text());
  await page.context().close();
});

test('trust is added with a preset and removed without script', async () => {
  const page = await open({ javaScriptEnabled: false });
  await page.getByRole('link', { name: 'Bots', exact: true }).click();
  await page.locator('main table a').first().click();
  await page.getByRole('link', { name: 'Add Trust' }).click();
  await page.getByRole('link', { name: 'GitLab CI/CD' }).click();
  assert.equal(await page.getByLabel('Issuer').inputValue(), 'https://gitlab.com');
  await page.getByLabel('Branch or tag').fill('main');
  await page.getByRole('button', { name: 'Add' }).click();
  await page.getByText('Enter the ID of the group or of the project.').waitFor();
  await page.getByLabel('Group ID').fill('9970');
  await page.getByLabel('Branch or tag').fill('refs/heads/main');
  await page.getByRole('button', { name: 'Add' }).click();
  await page.getByText('The trust was added.').waitFor();
  await page.getByText('namespace_id=9970').waitFor();
  await page.getByRole('link', { name: 'Remove the trust in https://gitlab.com' }).click();
  await page.getByText('signed out at their next request').waitFor();
  await page.getByRole('button', { name: 'Remove' }).click();
  await page.getByText('The trust was removed.').waitFor();
  assert.equal(await page.getByText('namespace_id=9970').count(), 0);
  await page.context().close();
});

test('invited person signs in by mail, accepts, and is removed while looking at a page', async () => {
  const page = await open();
  await page.getByRole('link', { name: 'Members', exact: true }).click();
  await page.getByRole('link', { name: 'Invite Member' }).first().click();
  await page.getByLabel('Email address').fill('dave@example.com');
  await page.getByLabel('Guard manager').check();
  await page.getByRole('button', { name: 'Invite' }).click();
  await page.getByText('The invitation was sent.').waitFor();

  const context = await chrome.newContext({ locale: 'en-US' });
  const dave = await context.newPage();
  await enterCode(dave, running, 'dave@example.com');
  await dave.getByRole('link', { name: /Demo/ }).click();
  await dave.getByRole('button', { name: 'Accept' }).click();
  await dave.getByRole('link', { name: 'Tokens', exact: true }).click();

  await page.getByRole('link', { name: 'Members', exact: true }).click();
  await page.getByRole('link', { name: 'dave@example.com' }).click();
  await page.getByRole('link', { name: /Remove/ }).click();
  await page.getByRole('button', { name: 'Remove' }).click();
  await page.getByText('The member was removed.').waitFor();
  await dave.reload();
  assert.match(dave.url(), /\/console\/sign-in/);
  await context.close();
  await page.context().close();
});
