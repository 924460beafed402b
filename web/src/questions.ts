/** Every question of the page, through the client that is generated from the contract. */

import {
  getOrganizationKeys,
  getOrganizationModels,
  getOrganizationUsage,
  getOrganizationUsers,
  getSystemModels,
  getSystemOrganizations,
  getSystemUsage,
  type AnswerBase,
  type GetSystemOrganizationsData,
  type GetSystemUsageData,
  type LineMeasures,
  type Problem,
  type UsageAnswer,
} from '@client';
import { createClient } from '@client/client';
import { signOut, token } from './session';

export type List = 'models' | 'users' | 'keys' | 'orgs';
/** The field of a line that says what it is about. */
export const KEY_OF = { models: 'model', users: 'user_id', keys: 'api_key_id', orgs: 'org_id' } as const;
export type UsageQuery = NonNullable<GetSystemUsageData['query']>;
export type ListQuery = NonNullable<GetSystemOrganizationsData['query']>;
export type Line = LineMeasures & { [key in (typeof KEY_OF)[List]]?: string | null };
export interface ListAnswer extends AnswerBase {
  data: Line[];
}
export type Question =
  | { ask: 'usage'; org: string | null; query: UsageQuery }
  | { ask: List; org: string | null; query: ListQuery };

/** Why there is no answer. */
export class Failure extends Error {
  /** 0: the API was not reached. */
  readonly status: number;
  readonly problem: Problem | null;
  readonly retryAfter: number | null;

  constructor(status: number, problem: Problem | null, retryAfter: number | null) {
    super(problem?.detail ?? (status ? `The answer was a ${status}.` : 'The service cannot be reached.'));
    this.status = status;
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

/** Usage is kept in this page's memory alone: not even the browser's cache gets it. */
const client = createClient({ baseUrl: globalThis.location?.origin, auth: token, cache: 'no-store' });

/** Answers by their questions, each with its tag: one that did not change is not sent again. */
const known = new Map<string, { tag: string; answer: AnswerBase }>();
const MOST_KNOWN = 200;

/** Forgets every answer, for the next one who signs in. */
export const forget = () => known.clear();

type Headers = Record<string, string>;
interface Reply {
  data?: unknown;
  error?: unknown;
  response?: Response;
}

function call({ ask, org, query }: Question, headers: Headers, signal?: AbortSignal, asText = false): Promise<Reply> {
  const parseAs = asText ? ('text' as const) : ('json' as const);
  const options = { client, headers, signal, parseAs };
  // What only the system can be asked is never asked of an organization: the controls do not offer it.
  const of = { ...options, path: { org_id: org ?? '' }, query: query as never };
  switch (ask) {
    case 'usage':
      return org ? getOrganizationUsage(of) : getSystemUsage({ ...options, query });
    case 'models':
      return org ? getOrganizationModels(of) : getSystemModels({ ...options, query });
    case 'users':
      return getOrganizationUsers(of);
    case 'keys':
      return getOrganizationKeys(of);
    case 'orgs':
      return getSystemOrganizations({ ...options, query });
  }
}

function failure({ error, response }: Reply): Failure {
  if (!response) return new Failure(0, null, null);
  const problem = error && typeof error === 'object' && 'detail' in error ? (error as Problem) : null;
  const seconds = Number(response.headers.get('Retry-After'));
  if (response.status === 401) signOut(problem?.detail.includes('expired') ? 'expired' : 'refused');
  return new Failure(response.status, problem, seconds > 0 ? seconds : null);
}

async function page<T extends AnswerBase>(question: Question, signal?: AbortSignal): Promise<T> {
  const key = JSON.stringify(question);
  const before = known.get(key);
  const reply = await call(question, before ? { 'If-None-Match': before.tag } : {}, signal);
  signal?.throwIfAborted();
  const { data, response } = reply;
  if (response?.status === 304 && before) return { ...before.answer, freshness: freshnessOf(response, before.answer) } as T;
  if (!response?.ok) throw failure(reply);
  const tag = response.headers.get('ETag');
  if (tag) {
    known.delete(key);
    known.set(key, { tag, answer: data as T });
    if (known.size > MOST_KNOWN) known.delete(known.keys().next().value!);
  }
  return data as T;
}

/** A 304 has it in its headers. */
function freshnessOf({ headers }: Response, { freshness }: AnswerBase): AnswerBase['freshness'] {
  const state = (headers.get('X-Freshness') ?? freshness.state) as AnswerBase['freshness']['state'];
  const counted_through = headers.get('X-Counted-Through');
  const age_seconds = counted_through ? Math.max(0, (Date.now() - Date.parse(counted_through)) / 1000) : null;
  return { state, counted_through, age_seconds };
}

/** Usage over time, all pages of it. */
export async function usage(org: string | null, query: UsageQuery, signal?: AbortSignal): Promise<UsageAnswer> {
  const question: Question = { ask: 'usage', org, query: { ...query, limit: 1000 } };
  const answer = await page<UsageAnswer>(question, signal);
  let { data, next_page } = answer;
  while (next_page) {
    const next = await page<UsageAnswer>({ ...question, query: { ...question.query, page: next_page } }, signal);
    data = [...data, ...next.data];
    next_page = next.next_page;
  }
  return { ...answer, data };
}

/** A list: the largest lines, and all others as one. */
export const list = (ask: List, org: string | null, query: ListQuery, signal?: AbortSignal) =>
  page<ListAnswer>({ ask, org, query }, signal);

/** The same question's rows as CSV. */
export async function csv(question: Question): Promise<string> {
  const reply = await call(question, { Accept: 'text/csv' }, undefined, true);
  if (!reply.response?.ok) throw failure(reply);
  return reply.data as string;
}

/** The same question for a terminal; the token stays out of it. */
export function curl({ ask, org, query }: Question): string {
  const url = client.buildUrl({
    url: `/api/v1/analytics/${org ? `orgs/${encodeURIComponent(org)}` : 'system'}/${ask}`,
    query: query as Record<string, unknown>,
  });
  // A quote in a URL would end the shell's.
  return `curl -H "Authorization: Bearer $TOKEN" '${new URL(url, location.origin).href.replace(/'/g, '%27')}'`;
}
