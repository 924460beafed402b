/** Ranges by the calendar of a time zone. Buckets are the API's: nothing here cuts a range into them. */

import { TZDateMini } from '@date-fns/tz';
import type { BucketWidth } from '@client';

/** A range of time, its end exclusive. */
export interface Span {
  start: Date;
  end: Date;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** The API keeps sums for 13 months. */
const MONTHS_KEPT = 13;

/** The widest range of each width, as the contract has it. */
const WIDEST: [BucketWidth, number][] = [
  ['1m', DAY],
  ['15m', 31 * DAY],
  ['1h', 93 * DAY],
  ['1d', 400 * DAY],
  ['1w', 3660 * DAY],
  ['1mo', 3660 * DAY],
];
/** How long a bucket lasts, about. */
const LASTS: Record<BucketWidth, number> = {
  '1m': MINUTE,
  '15m': 15 * MINUTE,
  '1h': HOUR,
  '1d': DAY,
  '1w': 7 * DAY,
  '1mo': 30 * DAY,
  all: Infinity,
};
/** What a chart shows well. */
const MOST_BUCKETS = 130;
/** A day of 25 hours is no reason to refuse a width. */
const SLACK = 2 * HOUR;

/** The first instant of a local date; months count from 0 and may be out of their range. */
function midnight(year: number, month: number, day: number, zone: string): Date {
  return new Date(new TZDateMini(year, month, day, zone).getTime());
}

/** The local date of an instant. */
function local(at: Date, zone: string): Date {
  return new TZDateMini(at.getTime(), zone);
}

/** Whether the browser knows the zone. */
export function isZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/** A month, written `2026-11`. */
export function month(written: string, zone: string): Span {
  const [year = 0, number = 1] = written.split('-').map(Number);
  return { start: midnight(year, number - 1, 1, zone), end: midnight(year, number, 1, zone) };
}

/** From one local date to another, both included, written `2026-11-03`. */
export function days(first: string, last: string, zone: string): Span {
  const [from, to] = [first, last].map((date) => date.split('-').map(Number)) as [number[], number[]];
  return {
    start: midnight(from[0]!, from[1]! - 1, from[2]!, zone),
    end: midnight(to[0]!, to[1]! - 1, to[2]! + 1, zone),
  };
}

/** An instant's local date, written `2026-11-03`. */
export function date(at: Date, zone: string): string {
  const there = local(at, zone);
  const two = (number: number) => String(number).padStart(2, '0');
  return `${there.getFullYear()}-${two(there.getMonth() + 1)}-${two(there.getDate())}`;
}

/** The months that the API still has, the running one first, written `2026-11`. */
export function months(now: Date, zone: string): string[] {
  const there = local(now, zone);
  return Array.from({ length: MONTHS_KEPT }, (_, back) => {
    const first = new Date(Date.UTC(there.getFullYear(), there.getMonth() - back, 1));
    return first.toISOString().slice(0, 7);
  });
}

/**
 * The days of last month that this month has had so far: from its first instant until the same time of the same
 * day, to the end of the running quarter of an hour, where the API lets "until now" end too. A shorter month ends it.
 */
export function sameDaysOfLastMonth(now: Date, zone: string): Span {
  const quarter = 15 * MINUTE;
  const there = local(new Date(Math.ceil((now.getTime() + 1) / quarter) * quarter), zone);
  const started = local(now, zone);
  // At the end of the last quarter of a month, `there` is in the next one.
  const elapsedDays = there.getMonth() === started.getMonth() ? there.getDate() : started.getDate() + 1;
  const [year, last] = [started.getFullYear(), started.getMonth() - 1];
  const end = new TZDateMini(year, last, elapsedDays, there.getHours(), there.getMinutes(), zone).getTime();
  const latest = midnight(year, last + 1, 1, zone).getTime();
  return { start: midnight(year, last, 1, zone), end: new Date(Math.min(end, latest)) };
}

/** What a period's name stands for, about: the API knows it to the second. */
export function period(name: string, now: Date, zone: string): Span {
  const there = local(now, zone);
  const [year, index, day] = [there.getFullYear(), there.getMonth(), there.getDate()];
  const tomorrow = midnight(year, index, day + 1, zone);
  switch (name) {
    case 'this_month':
      return { start: midnight(year, index, 1, zone), end: midnight(year, index + 1, 1, zone) };
    case 'last_month':
      return { start: midnight(year, index - 1, 1, zone), end: midnight(year, index, 1, zone) };
    case 'last_24h':
      return { start: new Date(now.getTime() - DAY), end: now };
    case 'last_7d':
      return { start: midnight(year, index, day - 6, zone), end: tomorrow };
    default:
      return { start: midnight(year, index, day - 29, zone), end: tomorrow };
  }
}

/** The widths that the contract allows for a range, and that cut it into at least two. */
export function widths(span: Span, ofSystem: boolean): BucketWidth[] {
  const length = span.end.getTime() - span.start.getTime();
  const allowed = WIDEST.filter(([width, widest]) => length <= widest + SLACK && LASTS[width] < length);
  const names = allowed.map(([width]) => width);
  const possible = ofSystem ? names.filter((width) => width !== '1m') : names;
  return possible.length > 0 ? possible : ['all'];
}

/** The width that a chart of the range shows best. */
export function bestWidth(span: Span, ofSystem: boolean): BucketWidth {
  const length = span.end.getTime() - span.start.getTime();
  const possible = widths(span, ofSystem);
  return possible.find((width) => length / LASTS[width] <= MOST_BUCKETS) ?? possible.at(-1)!;
}
