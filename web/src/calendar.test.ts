import { expect, test } from 'vitest';
import { bestWidth, date, days, month, months, period, sameDaysOfLastMonth, widths, type Span } from './calendar';

const written = ({ start, end }: Span) => [start.toISOString(), end.toISOString()];
const at = (text: string) => new Date(text);

test('months are those of the zone, through clock changes', () => {
  expect(written(month('2026-11', 'UTC'))).toEqual(['2026-11-01T00:00:00.000Z', '2026-12-01T00:00:00.000Z']);
  expect(written(month('2026-11', 'Asia/Kolkata'))).toEqual(['2026-10-31T18:30:00.000Z', '2026-11-30T18:30:00.000Z']);
  expect(written(month('2026-03', 'America/New_York'))).toEqual([
    '2026-03-01T05:00:00.000Z',
    '2026-04-01T04:00:00.000Z',
  ]);
  expect(months(at('2026-01-31T20:00:00Z'), 'Asia/Kolkata').slice(0, 3)).toEqual(['2026-02', '2026-01', '2025-12']);
  expect(months(at('2026-01-31T20:00:00Z'), 'UTC')).toHaveLength(13);
});

test('days include the last one', () => {
  expect(written(days('2026-10-25', '2026-10-25', 'Europe/Berlin'))).toEqual([
    '2026-10-24T22:00:00.000Z',
    '2026-10-25T23:00:00.000Z',
  ]);
  expect(date(at('2026-10-24T22:00:00Z'), 'Europe/Berlin')).toBe('2026-10-25');
});

test('the same days of last month end at the same time of the day', () => {
  const of = (now: string, zone: string) => written(sameDaysOfLastMonth(at(now), zone));
  expect(of('2026-11-28T06:40:00Z', 'UTC')).toEqual(['2026-10-01T00:00:00.000Z', '2026-10-28T06:45:00.000Z']);
  expect(of('2026-11-28T06:40:00Z', 'Asia/Kolkata')).toEqual(['2026-09-30T18:30:00.000Z', '2026-10-28T06:45:00.000Z']);
  // Berlin's clock went back in between.
  expect(of('2026-11-03T12:00:00Z', 'Europe/Berlin')).toEqual(['2026-09-30T22:00:00.000Z', '2026-10-03T11:15:00.000Z']);
  // February has fewer days; a month's last quarter belongs to it.
  expect(of('2026-03-30T12:00:00Z', 'UTC')).toEqual(['2026-02-01T00:00:00.000Z', '2026-03-01T00:00:00.000Z']);
  expect(of('2026-11-30T23:50:00Z', 'UTC')).toEqual(['2026-10-01T00:00:00.000Z', '2026-10-31T00:00:00.000Z']);
  expect(of('2026-01-01T00:00:00Z', 'UTC')).toEqual(['2025-12-01T00:00:00.000Z', '2025-12-01T00:15:00.000Z']);
});

test('only widths that the contract allows are offered', () => {
  const span = (name: string) => period(name, at('2026-11-28T06:40:00Z'), 'Europe/Berlin');
  expect(widths(span('last_24h'), false)).toEqual(['1m', '15m', '1h']);
  expect(widths(span('last_24h'), true)).toEqual(['15m', '1h']);
  expect(widths(span('last_30d'), false)).toEqual(['15m', '1h', '1d', '1w']);
  // 31 days and an hour.
  expect(widths(month('2026-10', 'Europe/Berlin'), false)[0]).toBe('15m');
  expect(bestWidth(span('last_30d'), false)).toBe('1d');
  expect(bestWidth(span('last_24h'), false)).toBe('15m');
  expect(widths({ start: at('2026-11-28T06:40:00Z'), end: at('2026-11-28T06:40:30Z') }, false)).toEqual(['all']);
});
