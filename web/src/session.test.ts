import { expect, test } from 'vitest';
import { read } from './session';

const token = (claims: object) => `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.s`;

test('claims are read, whatever letters they have', () => {
  const claims = { sub: 'zoë ☕', role: 'org_admin', org_id: 'o', exp: 2 };
  expect(read(` ${token(claims)}\n`)).toMatchObject({ role: 'org_admin', org: 'o', subject: 'zoë ☕', expires: 2000 });
  expect(read(token({ role: 'system_admin', exp: 1 }))).toMatchObject({ org: null, subject: '' });
});

test('what says too little is refused in words', () => {
  for (const wrong of ['', 'a.b.c', 'no token at all', token({ role: 'org_user', exp: 1 }), token({ role: 'system_admin' }), token({ role: 'root', exp: 1 })]) {
    expect(read(wrong), wrong).toBeTypeOf('string');
  }
});
