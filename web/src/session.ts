/** Who is signed in: a token in the session storage of this tab, and nowhere else. */

import { useSyncExternalStore } from 'react';

/** What a caller may be. */
export type Role = 'system_admin' | 'org_admin' | 'org_user';

/** What a token says. The API proves it; the page only reads what to show. */
export interface Session {
  token: string;
  role: Role;
  org: string | null;
  subject: string;
  /** Unix milliseconds. */
  expires: number;
}

/** Why nobody is signed in. */
export type Ended = 'never' | 'expired' | 'refused' | 'left';

const KEY = 'usage-analytics.token';
const ROLES: Role[] = ['system_admin', 'org_admin', 'org_user'];

let current: Session | null = null;
let ended: Ended = 'never';
const listeners = new Set<() => void>();

/** Reads a token's claims. */
export function read(token: string): Session | string {
  let claims: Record<string, unknown>;
  try {
    const body = token.trim().split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    claims = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return 'This is not a JSON Web Token.';
  }
  const { role, org_id, sub, exp } = claims;
  if (typeof exp !== 'number') return 'This token has no expiry (exp).';
  if (!ROLES.includes(role as Role)) return 'This token names no role that this page knows.';
  if (role !== 'system_admin' && typeof org_id !== 'string') return 'This token names no organization (org_id).';
  return {
    token: token.trim(),
    role: role as Role,
    org: typeof org_id === 'string' ? org_id : null,
    subject: typeof sub === 'string' ? sub : '',
    expires: exp * 1000,
  };
}

function set(session: Session | null, why: Ended) {
  [current, ended] = [session, why];
  if (session) sessionStorage.setItem(KEY, session.token);
  else sessionStorage.removeItem(KEY);
  listeners.forEach((listener) => listener());
}

/** Signs in; says what is wrong with the token if something is. */
export function signIn(token: string): string | null {
  const session = read(token);
  if (typeof session === 'string') return session;
  if (session.expires <= Date.now()) return 'This token has expired.';
  set(session, 'never');
  return null;
}

/** Forgets the token. */
export function signOut(why: Ended) {
  if (current) set(null, why);
}

/** Takes a token out of `#token=…` before anything else happens, or the one that this tab had. */
export function begin() {
  const given = new URLSearchParams(location.hash.slice(1)).get('token');
  if (given !== null) history.replaceState(history.state, '', location.pathname + location.search);
  const token = given ?? sessionStorage.getItem(KEY);
  if (!token) return;
  const session = read(token);
  if (typeof session === 'string') set(null, 'refused');
  else if (session.expires <= Date.now()) set(null, 'expired');
  else set(session, 'never');
}

/** The token to send. */
export const token = () => current?.token;

const subscribe = (listener: () => void) => {
  listeners.add(listener);
  return () => listeners.delete(listener);
};

/** Who is signed in, as it changes. */
export const useSession = () => useSyncExternalStore(subscribe, () => current);
/** Why nobody is. */
export const useEnded = () => useSyncExternalStore(subscribe, () => ended);
