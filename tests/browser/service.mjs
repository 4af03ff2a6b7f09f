// The local service, an upstream npm registry with one package, and the browser.

import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { createHash } from 'node:crypto';
import { chromium } from 'playwright-core';

const SECONDS_TO_START = 60;

/// A folder that goes with the process.
export function folder() {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), 'guard-browser-'));
  process.on('exit', () => fs.rmSync(made, { recursive: true, force: true }));
  return made;
}

async function listening(server) {
  server.listen(0, '127.0.0.1');
  await new Promise(done => server.once('listening', done));
  // Not the name that the service has: it refuses an upstream on its own host.
  return `http://localhost:${server.address().port}`;
}

/// A registry with the package `widgets`.
export async function registry() {
  const source = folder();
  fs.writeFileSync(path.join(source, 'package.json'), JSON.stringify({ name: 'widgets', version: '1.0.0' }));
  execFileSync('npm', ['pack', '--silent'], { cwd: source });
  const tarball = fs.readFileSync(path.join(source, 'widgets-1.0.0.tgz'));
  const integrity = `sha512-${createHash('sha512').update(tarball).digest('base64')}`;
  let base;
  const server = http.createServer((request, response) => {
    if (request.url === '/widgets/-/widgets-1.0.0.tgz') return response.end(tarball);
    if (!/^\/widgets(\?|$)/.test(request.url)) return response.writeHead(404).end('{}');
    const dist = { tarball: `${base}/widgets/-/widgets-1.0.0.tgz`, integrity };
    const version = { name: 'widgets', version: '1.0.0', dist };
    response.setHeader('content-type', 'application/json');
    const tags = { latest: '1.0.0' };
    return response.end(JSON.stringify({ name: 'widgets', 'dist-tags': tags, versions: { '1.0.0': version } }));
  });
  base = await listening(server);
  return { url: `${base}/`, stop: () => void server.close().closeAllConnections() };
}

/// Starts the service with these further arguments.
export async function service(...extra) {
  const data = folder();
  const envFile = path.join(data, 'demo.env');
  const args = ['--memory', '--env-file', envFile, '--no-rate-limit', ...extra];
  if (!extra.includes('--port')) args.push('--port', '0');
  const child = spawn(process.env.SERVICE, args, { cwd: data, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.on('data', text => (output += text));
  child.stderr.on('data', text => (output += text));
  const deadline = Date.now() + SECONDS_TO_START * 1000;
  const link = () => output.match(/http:\/\/\S+\/console\/sign-in\/local\/gs_\w+/)?.[0];
  while (!link() || !fs.existsSync(envFile)) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error(`the service did not start:\n${output}`);
    await new Promise(done => setTimeout(done, 50));
  }
  const lines = fs.readFileSync(envFile, 'utf8').matchAll(/^export (\w+)=(.*)$/gm);
  const env = Object.fromEntries([...lines].map(([, name, value]) => [name, value]));
  const running = { base: env.BASE_URL, env, link: link(), output: () => output };
  /// Calls the API as the demo bot.
  running.api = async (method, route, body) => {
    const response = await fetch(running.base + route, {
      method,
      headers: { authorization: `Bearer ${env.BOT_API_KEY}:${env.BOT_ID}`, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${route}: ${response.status} ${text}`);
    return text && JSON.parse(text);
  };
  /// Downloads the package with a token.
  running.download = async token => {
    const headers = { authorization: `Bearer ${token}` };
    const response = await fetch(`${running.base}/npm/widgets/-/widgets-1.0.0.tgz`, { headers, redirect: 'manual' });
    if (response.status >= 400) throw new Error(`the download was refused: ${response.status}`);
  };
  running.mails = async () => (await fetch(`${running.base}/_local/mail.json`)).json();
  running.stop = () => child.kill();
  return running;
}

/// Debian's Chromium.
export function browser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      '--no-sandbox',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-quic',
      // Nothing outside of this machine is asked for.
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
    ],
  });
}

/// Signs in with the printed link, and returns the browser's state for other contexts.
export async function signIn(chrome, running) {
  const context = await chrome.newContext({ locale: 'en-US' });
  const page = await context.newPage();
  await page.goto(running.link);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL(/\/console\/o\/OG/);
  const state = await context.storageState();
  await context.close();
  return state;
}

/// Sends a sign-in code to an address and enters it.
export async function enterCode(page, running, email) {
  await page.goto(`${running.base}/console/`);
  await page.getByLabel('Email address').fill(email);
  await page.getByRole('button', { name: 'Send code' }).click();
  await page.getByText('Check your mail').waitFor();
  const mails = (await running.mails()).filter(mail => mail.to === email);
  const [code] = mails.flatMap(mail => mail.text.match(/\b(?:[0-9A-Z]{4}-){3}[0-9A-Z]{4}\b/) ?? []);
  await page.getByLabel('Code').fill(code);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL(url => !url.pathname.startsWith('/console/sign-in'));
}

/// Signs in with a code, and returns the browser's state for other contexts.
export async function signInByMail(chrome, running, email) {
  const context = await chrome.newContext({ locale: 'en-US' });
  await enterCode(await context.newPage(), running, email);
  const state = await context.storageState();
  await context.close();
  return state;
}
