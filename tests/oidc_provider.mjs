// An OpenID Connect provider for the tests: npm's certified `oidc-provider` with people and clients from a JSON file.
// Started by oidc_server.py with the file's path; prints one line of JSON when it listens, and ends with its parent
// (when standard input ends). Commands on standard input, one JSON document a line: {"rotate": true} makes a new
// signing key; {"amr": [...], "acr": "..."} are what the next logins claim. Each is answered with a line.
import Provider, { errors } from 'oidc-provider';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import readline from 'node:readline';

const given = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const people = new Map(given.people.map((each) => [each.sub, each]));
const claimed = { amr: ['pwd'], acr: undefined };
let keys = 0;

function newKey() {
  const { privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
  keys += 1;
  return { ...privateKey.export({ format: 'jwk' }), kid: `key-${keys}`, alg: 'RS256', use: 'sig' };
}

function makeProvider(issuer) {
  const provider = new Provider(issuer, {
    clients: given.clients,
    jwks: { keys: [newKey()] },
    cookies: { keys: ['not secret, only tested'] },
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username', 'organization'],
      email: ['email', 'email_verified'],
      acr: null, amr: null, auth_time: null,
    },
    acrValues: ['https://refeds.org/profile/mfa'],
    conformIdTokenClaims: given.claims_at_userinfo_only ?? false,
    pkce: { required: () => true },
    features: { devInteractions: { enabled: false }, claimsParameter: { enabled: true } },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 3600, IdToken: 600, Interaction: 600, Session: 3600 },
    findAccount: (_ctx, sub) => people.has(sub) && {
      accountId: sub,
      claims: () => { const { password, ...claims } = people.get(sub); return claims; },
    },
  });
  return provider;
}

let provider;
let answer;

async function interaction(request, response) {
  const { uid, prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  const page = (status, body) => {
    response.writeHead(status, { 'content-type': 'text/html; charset=utf-8' });
    response.end(`<!doctype html><html lang="en"><title>Site login</title><body>${body}</body></html>`);
  };
  if (request.method === 'GET') {
    return prompt.name === 'login'
      ? page(200, `<form method="post" action="/interaction/${uid}"><label>Site user <input name="login"></label>`
        + '<label>Site password <input name="password" type="password"></label><button>Sign in at the site</button></form>')
      : page(200, `<form method="post" action="/interaction/${uid}"><button name="ok" value="yes">Allow</button>`
        + '<button name="ok" value="no">Deny</button></form>');
  }
  const form = new URLSearchParams(await new Promise((done) => {
    let text = '';
    request.on('data', (piece) => { text += piece; });
    request.on('end', () => done(text));
  }));
  const finish = (result, merge) => provider.interactionFinished(request, response, result, { mergeWithLastSubmission: merge });
  if (prompt.name === 'login') {
    const who = given.people.find((each) => each.sub === form.get('login') && each.password === form.get('password'));
    if (!who) return page(401, 'Wrong user or password');
    return finish({ login: { accountId: who.sub, amr: claimed.amr, acr: claimed.acr } }, false);
  }
  if (form.get('ok') !== 'yes') return finish({ error: 'access_denied', error_description: 'the user said no' }, false);
  const grant = grantId ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
  return finish({ consent: { grantId: await grant.save() } }, true);
}

const server = http.createServer((request, response) => {
  if (request.url.startsWith('/interaction/')) {
    interaction(request, response).catch((error) => { response.writeHead(400); response.end(String(error)); });
  } else answer(request, response);
});

function begin(issuer) {
  provider = makeProvider(issuer);
  answer = provider.callback();
}

server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  begin(issuer);
  console.log(JSON.stringify({ issuer }));
  readline.createInterface({ input: process.stdin }).on('line', (line) => {
    const { rotate, clients, ...rest } = JSON.parse(line);
    Object.assign(claimed, rest);
    if (clients) given.clients = clients;
    if (rotate || clients) begin(issuer);
    console.log('{}');
  }).on('close', () => process.exit(0));
});
