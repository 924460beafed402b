// How the portal asks, compiled by `make client`: if the contract's types stop saying what the API says, this
// stops compiling.

import { getOrganizationUsage, getSystemOrganizations } from './src';
import { createClient } from './src/client';

const client = createClient({ baseUrl: 'http://localhost:8080', auth: () => 'the token' });

export async function tokensByDay(organization: string): Promise<Map<string, number>> {
  const { data, error } = await getOrganizationUsage({
    client,
    path: { org_id: organization },
    query: { period: 'last_30d', bucket_width: '1d', time_zone: 'Asia/Kolkata' },
  });
  if (error) {
    throw new Error(`${error.title}: ${error.detail} (${error.request_id})`);
  }
  if (!data) {
    throw new Error('no answer');
  }
  const days = data.data.map((bucket): [string, number] => [
    bucket.start_time,
    bucket.results.reduce((sum, result) => sum + result.total_tokens, 0),
  ]);
  return new Map(days);
}

export async function costs(): Promise<string[]> {
  const { data } = await getSystemOrganizations({ client, query: { top: 10 } });
  if (!data) {
    return [];
  }
  return data.data.map((line) => `${line.org_id ?? 'all others'}: ${line.cost} ${data.currency}`);
}
