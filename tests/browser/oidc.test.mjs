// Signing in through a certified OpenID provider on loopback.

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { Provider } from 'oidc-provider';
import { browser, service } from './service.mjs';

let provider, running, chrome;

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise(done => server.once('listening', done));
  const { port } = server.address();
  await new Promise(done => server.close(done));
  return port;
}

before(async () => {
  const [providerPort, port] = [await freePort(), await freePort()];
  const issuer = `http://127.0.0.1:${providerPort}`;
  const oidc = new Provider(issuer, {
    clients: [
      {
        client_id: 'guard-tokens',
        client_secret: 'a-secret-of-the-test',
        redirect_uris: [`http://127.0.0.1:${port}/console/sign-in/callback`],
      },
    ],
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    // The pages of development: any login is an account.
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: !id.startsWith('unverified') }),
    }),
    // The address comes from the ID token alone.
    conformIdTokenClaims: false,
  });
  oidc.on('server_error', (_, error) => console.error(error));
  provider = http.createServer(oidc.callback()).listen(providerPort, '127.0.0.1');
  running = await service(
    ...['--port', String(port), '--oidc-issuer', issuer],
    ...['--oidc-client-id', 'guard-tokens', '--oidc-client-secret', 'a-secret-of-the-test'],
  );
  chrome = await browser();
});

after(async () => {
  await chrome?.close();
  running?.stop();
  provider?.close().closeAllConnections();
});

async function signIn(account) {
  const page = await (await chrome.newContext({ locale: 'en-US' })).newPage();
  await page.goto(`${running.base}/console/`);
  await page.getByRole('link', { name: /organization's account/ }).click();
  await page.locator('[name=login]').fill(account);
  await page.locator('[name=password]').fill('any');
  await page.locator('button[type=submit]').click();
  await page.locator('button[type=submit]').click();
  await page.waitForURL(url => url.href.startsWith(running.base));
  return page;
}

test('invited person signs in through the provider and accepts', async () => {
  const owner = await (await chrome.newContext({ locale: 'en-US' })).newPage();
  await owner.goto(running.link);
  await owner.getByRole('button', { name: 'Sign in' }).click();
  await owner.goto(`${running.base}/console/o/${running.env.ORG}/members/invite`);
  await owner.getByLabel('Email address').fill('erin@example.com');
  await owner.getByLabel('Guard manager').check();
  await owner.getByRole('button', { name: 'Invite' }).click();
  await owner.getByText('The invitation was sent.').waitFor();

  const page = await signIn('erin');
  await page.getByRole('link', { name: /Demo/ }).click();
  await page.getByRole('button', { name: 'Accept' }).click();
  await page.getByRole('link', { name: 'Tokens', exact: true }).click();
  await page.getByRole('link', { name: 'Issue Token' }).first().click();
  await page.getByLabel('User Identifier').fill('erin-laptop');
  await page.getByRole('button', { name: 'Issue', exact: true }).click();
  await page.getByText(/tg_org_/).first().waitFor();
  assert.ok(!page.url().includes('code='));
});

test('person without an invitation and one with an unverified address are not signed in', async () => {
  for (const [account, reason] of [
    ['stranger', 'Nobody has invited this address yet'],
    ['unverified', 'has not verified your email address'],
  ]) {
    const page = await signIn(account);
    await page.getByText(reason).waitFor();
    const cookies = await page.context().cookies(running.base);
    assert.ok(!cookies.some(cookie => cookie.name.startsWith('guard_session')), account);
  }
});
